"""The metrics as pure functions of tokens: no model, no example, no file.

All are teacher-forced (PAPER.md is the paper's summary; Zhang et al. 2024, InstructEdit, section
Metrics; the same token accuracy as Mitchell et al. 2022): the target stands in the input and the
argmax is taken at each position that predicts one of its tokens.

    hit_t         = [argmax_v p(v | x, y_<t) = y_t]                    reliability, generalization, portability
    hit_t         = [argmax_v p_after(v | .) = argmax_v p_before(v | .)]                              locality
    share(probe)  = mean_t hit_t
    exact(probe)  = min_t hit_t
    value         = mean over an example's probes
"""

from collections.abc import Mapping, Sequence

from instructedit.records import ProbeKind

METRICS = ("reliability", "generalization", "locality", "portability")
"""In the order of a table's columns; each also exists with the suffix ``_exact``."""

METRIC_OF: Mapping[ProbeKind, str] = {
    "rephrase": "generalization",
    "portability": "portability",
    "locality": "locality",
}
"""Which metric a kind of probe is measured by; kinds that are missing here are measured elsewhere."""


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


def mean(values: Sequence[float]) -> float:
    """Average an example's probes, each with the same weight however many tokens it has."""
    return sum(values) / len(values)
