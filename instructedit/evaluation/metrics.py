"""The metrics as pure functions of tokens: no model, no example, no file.

Teacher-forced (PAPER.md is the paper's summary; Zhang et al. 2024, InstructEdit, section Metrics; the same
token accuracy as Mitchell et al. 2022): the target stands in the input and the argmax is taken at each
position that predicts one of its tokens.

    hit_t         = [argmax_v p(v | x, y_<t) = y_t]                    reliability, generalization, portability
    hit_t         = [argmax_v p_after(v | .) = argmax_v p_before(v | .)]                              locality
    share(probe)  = mean_t hit_t
    exact(probe)  = min_t hit_t
    value         = mean over an example's probes

Greedy: the same shares of the tokens that a greedy continuation of x has at the target's places, so a method is
asked what it says when nobody tells it the answer (see ``generated``). ConvSent's success is made of
log-probabilities (see ``success``), fluency of words (see ``fluency``). ``definitions`` has them all in one table.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from instructedit.records import ProbeKind

METRICS = ("reliability", "generalization", "locality", "portability", "success", "fluency")
"""In the order of a table's columns."""

VARIANTS = ("", "exact", "greedy", "greedy_exact")
"""How the first four metrics are measured: teacher-forced share of tokens, the same all or nothing, share of tokens
of a greedy continuation, whether that continuation begins with the answer. The others have the first one alone."""

VARIED = METRICS[:4]
"""The metrics that every variant exists of."""

UNITS: Mapping[str, Literal["share", "0.01 bit"]] = {
    metric: "0.01 bit" if metric == "fluency" else "share" for metric in METRICS
}
"""What a metric's values are: a share lies between 0 and 1 and is printed in percent; fluency is an entropy in
hundredths of a bit and is stored and printed as it is."""


def named(metric: str, variant: str = "") -> str:
    """Return the name under which an ``Outcome`` holds a metric's variant, such as ``locality_greedy``."""
    return f"{metric}_{variant}" if variant else metric


NAMES = tuple(named(metric, variant) for metric in METRICS for variant in (VARIANTS if metric in VARIED else ("",)))
"""Every name an ``Outcome`` may have as its metric, in the order of the runner's outcomes."""

LOOK_AHEAD = 4
"""Tokens generated beyond the longest answer: another spelling of it may take more, and its last word may go on."""

METRIC_OF: Mapping[Literal["request"] | ProbeKind, str] = {
    "request": "reliability",
    "rephrase": "generalization",
    "portability": "portability",
    "locality": "locality",
    "wanted": "success",
    "unwanted": "success",
}
"""Which metric the request's own texts and each kind of probe are measured by."""


@dataclass(frozen=True)
class Value:
    """One number of one example: an ``Outcome`` but for whose it is."""

    metric: str
    value: float
    n_tokens: int
    n_probes: int


def hits(predicted: Sequence[int], wanted: Sequence[int]) -> list[bool]:
    """Compare two equally long lists of tokens position by position.

    Args:
        predicted: the argmax at each target position, after the edit.
        wanted: the target's tokens; for locality the argmaxes before the edit.
    """
    return [a == b for a, b in zip(predicted, wanted, strict=True)]


def share(hit: Sequence[bool]) -> float:
    """Return the share of hits among one probe's target tokens, between 0 and 1."""
    return sum(hit) / len(hit)


def exact(hit: Sequence[bool]) -> float:
    """Return 1 where every target token of one probe is a hit, else 0."""
    return float(all(hit))


def begins_with(text: str, answer: str) -> bool:
    """Tell whether a continuation begins with an answer: in any case, white space folded, no word cut in two.

    White space before the answer is passed over; nothing else is, not even a quotation mark.
    """
    said, wanted = (" ".join(each.casefold().split()) for each in (text, answer))
    # A word that goes on is another word; after an answer's closing punctuation anything may follow.
    return re.match(re.escape(wanted) + (r"(?!\w)" if wanted[-1:].isalnum() else ""), said) is not None


def mean(values: Sequence[float]) -> float:
    """Average an example's probes, each with the same weight however many tokens it has."""
    return sum(values) / len(values)


def success(wanted_after: float, unwanted_after: float, wanted_before: float) -> float:
    """Say how far an edit moved a topic's replies to the wanted side while they stayed on the topic.

    Between 0 and 1, the product of two factors (Mitchell et al. 2022, SERAC, its ConvSent metrics; PAPER.md)::

        z_sent = sigmoid(lp_after(wanted) - lp_after(unwanted))
        z_topic = min(1, exp(lp_after(wanted) - lp_before(wanted)))

    where lp is the mean over texts of a text's mean log-probability per token, in nats. The texts are completions
    of the topic that the request does not use. Without an edit z_topic is 1.

    Args:
        wanted_after: lp of the side asked for, after the edit.
        unwanted_after: lp of the other side, after the edit.
        wanted_before: lp of the side asked for, before the edit.
    """
    difference = wanted_after - unwanted_after
    # Either form alone overflows at one end.
    small = math.exp(-abs(difference))
    sentiment = (1.0 if difference >= 0 else small) / (1 + small)
    return sentiment * math.exp(min(0.0, wanted_after - wanted_before))
