"""Numbers and tables as the Markdown of a report has them. Knows nothing of what they mean."""

from collections.abc import Iterable, Sequence

from instructedit.analysis.seeds import Pooled
from instructedit.evaluation.layout import scale

NOTHING = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Make a table; columns after the first ``left`` ones are set to the right."""
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    lines = [head, marks, *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def number(metric: str, value: float, signed: bool = False) -> str:
    """Write a value in its unit: shares in percent, fluency as it is, one decimal; a plain number with two.

    >>> number("reliability", 0.0534, signed=True), number("fluency", -12.0), number("", 0.125, signed=True)
    ('+5.3', '-12.0', '+0.12')
    >>> number("reliability", -0.0001, signed=True)
    '0.0'
    """
    text = f"{value * scale(metric):.1f}" if metric else f"{value:.2f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return f"+{text}" if signed and value > 0 else text


def interval(metric: str, pooled: Pooled | None, signed: bool = False) -> str:
    """Write a mean and its interval, or a dash where there is none."""
    if pooled is None:
        return NOTHING
    mean, low, high = (number(metric, value, signed) for value in (pooled.mean, pooled.low, pooled.high))
    return f"{mean} [{low}, {high}]"


def points(value: float | None) -> str:
    """Write one of the paper's differences, in points.

    >>> points(0.08), points(-1.1), points(None)
    ('+0.08', '-1.10', '-')
    """
    return NOTHING if value is None else f"{value:+.2f}"


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())
