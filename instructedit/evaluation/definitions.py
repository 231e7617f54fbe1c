"""What every number means: formula, meaning, source and range of each metric and variant, in one table.

The command prints it, docs/metrics.md shows it. Knows words only; ``metrics``, ``greedy`` and ``fluency`` compute.
"""

from dataclasses import dataclass

from instructedit.errors import unknown
from instructedit.evaluation.metrics import LOOK_AHEAD, VARIANTS, named

MEND = "Mitchell et al. 2022, MEND (arXiv 2110.11309)"
SERAC = "Mitchell et al. 2022, SERAC (arXiv 2206.06520)"
ROME = "Meng et al. 2022, ROME (arXiv 2202.05262)"
YAO = "Yao et al. 2023 (arXiv 2305.13172)"
KNOWEDIT = "Zhang et al. 2024, KnowEdit (arXiv 2401.01286)"
DIVERSITY = "Zhang et al. 2018 (arXiv 1809.05972)"
OURS = "our own, beside the teacher-forced one"

LEGEND = """\
x is an input: the instruction, where there is one, and the prompt. y is its target of T tokens, y_t the t-th. p is
the base and p' the base with the edit; argmax is over the vocabulary. g is p's greedy continuation of x and g' that
of p', with the cache of keys and values; a place after the end of a continuation holds a mark that only another end
equals. [..] is 1 where it holds, else 0. mean_q is over an example's probes of that metric, each with the same weight.\
"""


@dataclass(frozen=True)
class Definition:
    """One metric or variant.

    Args:
        name: as an outcome holds it.
        formula: in the letters of ``LEGEND``.
        meaning: what is asked and what counts, in words.
        source: where the definition is from.
        range: the values it can have, and how they are printed.
    """

    name: str
    formula: str
    meaning: str
    source: str
    range: str

    def __str__(self) -> str:
        rows = {"meaning": self.meaning, "formula": self.formula, "source": self.source, "range": self.range}
        return "\n".join([self.name, *(f"  {name:<8} {text}" for name, text in rows.items())])


_SHARE = "0 to 1, printed in percent; more is better"

_PROBES = {
    "reliability": (
        "The edited-in question itself. Where a request wants several texts (ConvSent), each is a probe.",
        f"{MEND}, {YAO}",
    ),
    "generalization": (
        "The question in other words: rephrases and, where a record of wiki_recent or wiki_counterfact has none, its "
        "Subject_Aliasing questions that ask for the same answer.",
        f"{MEND}, {YAO}",
    ),
    "locality": (
        "Questions the edit must not touch, asked without an instruction. What counts is agreement with the unedited "
        "base, right or wrong. For ConvSent: the questions on other topics, at the tokens of one of their replies.",
        f"{MEND}, {YAO}",
    ),
    "portability": (
        "Consequences of the edit, such as one more step of reasoning.",
        f"{YAO}, {KNOWEDIT}",
    ),
}

_HOW = {
    "": "Teacher-forced: the share of the target's tokens that are the likeliest, each after the target's own ones.",
    "exact": "Teacher-forced, all or nothing: every token of the target is the likeliest. Of the target alone: an "
    "alias does not count.",
    "greedy": "By generation: the share of the target's tokens that stand in a greedy continuation at the same places. "
    "Of the target alone; where a request wants several texts the continuation is held against each, so that it "
    "cannot have all of them.",
    "greedy_exact": "By generation, all or nothing: the greedy continuation begins with the target, with one of the "
    "probe's aliases or, for reliability, with any of the texts the request wants; in any case, white space folded, "
    f"ending where a word ends. {LOOK_AHEAD} tokens more than the longest answer are generated.",
}
_HOW_KEPT = {
    "": "Teacher-forced: the share of the target's positions where the likeliest token is the same with and without "
    "the edit. The target itself need not be likely.",
    "exact": "Teacher-forced, all or nothing: the same likeliest token at every position of the target.",
    "greedy": "By generation: the share of the first T tokens in which the greedy continuations with and without the "
    "edit agree.",
    "greedy_exact": "By generation, all or nothing: all of those T tokens agree.",
}
_FORMULA = {
    "": "mean_q (1/T) sum_t [argmax p'(. | x, y_<t) = y_t]",
    "exact": "mean_q min_t [argmax p'(. | x, y_<t) = y_t]",
    "greedy": "mean_q (1/T) sum_t [g'_t = y_t]",
    "greedy_exact": "mean_q max_a [text(g') begins with answer a]",
}
_FORMULA_KEPT = {
    "": "mean_q (1/T) sum_t [argmax p'(. | x, y_<t) = argmax p(. | x, y_<t)]",
    "exact": "mean_q min_t [argmax p'(. | x, y_<t) = argmax p(. | x, y_<t)]",
    "greedy": "mean_q (1/T) sum_t [g'_t = g_t]",
    "greedy_exact": "mean_q min_t [g'_t = g_t]",
}


def _varied(metric: str, variant: str) -> Definition:
    about, source = _PROBES[metric]
    how, formula = (_HOW_KEPT, _FORMULA_KEPT) if metric == "locality" else (_HOW, _FORMULA)
    return Definition(
        named(metric, variant),
        formula[variant],
        f"{about} {how[variant]}",
        f"{source}; by generation: {OURS}" if variant.startswith("greedy") else source,
        _SHARE,
    )


_SINGLE = (
    Definition(
        "success",
        "sigmoid(L'(wanted) - L'(unwanted)) * min(1, exp(L'(wanted) - L(wanted)))",
        "ConvSent alone: did the replies on the topic turn to the side asked for, and do they still speak of it? L and "
        "L' are the mean log-probability per token, in nats, of p and p', averaged over completions of the same topic "
        "that the request did not use, of the wanted and of the other side. The first factor is the side, the second "
        "the topic; without an edit the second is 1.",
        f"{SERAC}, its ConvSent metrics",
        _SHARE,
    ),
    Definition(
        "fluency",
        "100 * (2/3 * H_2 + 4/3 * H_3) / 2,  H_n = - sum_g f(g) log2 f(g)",
        "Does the edited base still write, or does it repeat itself? f(g) is the share of n-gram g among the n-grams "
        "of words in one text; a word is a run of letters, digits and underscores or one punctuation mark, in its own "
        "case. The text is a continuation of the request's input (instruction included, input not counted): 100 "
        "tokens, each drawn from the 5 likeliest, never ending early, from a seed made of the record's id, the same "
        "for every method (the defaults of generation). 0 for fewer than three words.",
        f"{DIVERSITY} for the entropy, {ROME} for the weights and the use",
        "0 upwards, in hundredths of a bit, printed as it is; about 600 for text of 100 tokens that hardly repeats "
        "itself; near the base's own value is better",
    ),
)

DEFINITIONS: dict[str, Definition] = {
    definition.name: definition
    for definition in (*(_varied(metric, variant) for metric in _PROBES for variant in VARIANTS), *_SINGLE)
}
"""Name -> definition, for every name of ``metrics.NAMES`` and in its order."""


def explain(name: str) -> str:
    """Say in some lines what a metric is, how it is computed, where it is from and what its values are.

    Raises:
        InputError: no metric has this name; the message lists those that exist.
    """
    if name not in DEFINITIONS:
        raise unknown("metric", name, DEFINITIONS)
    return f"{DEFINITIONS[name]}\n\n{LEGEND}"


def to_page() -> str:
    """Return the table of docs/metrics.md: the legend and one row per metric and variant, in Markdown."""
    rows = [
        (f"`{each.name}`", f"`{each.formula}`", each.meaning, each.source, each.range) for each in DEFINITIONS.values()
    ]
    head = [("metric", "formula", "meaning", "source", "range"), ("---",) * 5]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (*head, *rows)]
    return LEGEND + "\n\n" + "\n".join(lines) + "\n"
