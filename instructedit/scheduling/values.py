"""Which texts may stand in an ``#SBATCH`` line: sbatch reads those with rules of its own, which are no shell's."""

import re

from instructedit.errors import InputError

MAXIMUM = 1_000_000
"""The largest number of anything that is asked for."""

LONGEST = 255
"""Bytes of a file's name, on all usual file systems."""

_FORMS: dict[str, tuple[str, str]] = {
    "time": (r"\d{1,7}(:\d{1,2}){0,2}|\d{1,4}-\d{1,2}(:\d{1,2}){0,2}", "minutes, HH:MM:SS or DAYS-HH:MM:SS"),
    "mem": (r"\d{1,9}[KMGT]?", "a number with K, M, G or T, such as 64G"),
    "option": (r"--[a-z][a-z-]*(=[A-Za-z0-9_.,:@+/*|&()\[\]-]+)?", "--name or --name=value, without spaces or quotes"),
    "constraint": (r"[A-Za-z0-9_.(\[][A-Za-z0-9_.,&|*()\[\]-]*", "features joined by & or |, such as a100&nvlink"),
    "job": (r"\d{1,10}(_\d{1,7})?", "the number that sbatch has told"),
}
_PLAIN = (r"[A-Za-z0-9_][A-Za-z0-9_.,@+-]*", "letters, digits and _ . , @ + -")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SPLITS = re.compile("hetjob|packjob", re.IGNORECASE)


def check_value(kind: str, value: str, source: str) -> str:
    """Return a value that stands for itself in an ``#SBATCH`` line.

    Args:
        kind: what it is: time, mem, option, constraint, job; anything else is a plain name.
        value: the text.
        source: where it comes from, for the message.

    Raises:
        InputError: it holds anything else.
    """
    form, told = _FORMS.get(kind, _PLAIN)
    if not re.fullmatch(form, value, re.ASCII):
        raise InputError(f"{source} is {value!r}. Give {told}.")
    return value


def time_seconds(value: str) -> int:
    """A time limit in seconds.

    >>> [time_seconds(text) for text in ("90", "1:30", "1:00:00", "2-12", "1-0:30")]
    [5400, 90, 3600, 216000, 88200]
    """
    days, dash, rest = value.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # Without days the first of one or two numbers is minutes, with days it is hours.
    scale = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(number * unit for number, unit in zip(parts, scale, strict=False))


def control_characters(text: str) -> bool:
    """Whether a text holds line breaks or other characters that no terminal shows."""
    return bool(_CONTROL.search(text))


def check_length(path: str, source: str) -> str:
    """Return a path that a file system can hold.

    Raises:
        InputError: a name in it is too long, or holds a null character; no file can be asked for then.
    """
    if "\0" in path:
        raise InputError(f"{source} is {path[:60]!r}: it holds a null character. Choose another name.")
    long = next((part for part in path.split("/") if len(part.encode(errors="replace")) > LONGEST), None)
    if long is not None:
        told = f"a name of {len(long.encode(errors='replace'))} bytes, and {LONGEST} are the most"
        raise InputError(f"{source} has {told}: {long[:40]!r}... Choose a shorter one.")
    return path


def check_path(path: str, source: str) -> str:
    """Return a path that can stand in an ``#SBATCH`` line when it is quoted there.

    Raises:
        InputError: sbatch would read it otherwise: line breaks, a backslash (it turns the job's number in a log's name
            off), or a word at which it cuts a script in two.
    """
    found = _SPLITS.search(path)
    if control_characters(path) or "\\" in path or found:
        what = (
            repr(found[0]) if found else "a backslash" if "\\" in path else "a line break or another control character"
        )
        raise InputError(f"{source} is {path!r}: SLURM cannot write logs to a path with {what}. Choose another name.")
    return path


def quoted(text: str) -> str:
    """A text as sbatch reads it back from an ``#SBATCH`` line: it knows quotes, backslashes and ``#``."""
    if re.fullmatch(r"[\w./:=@%+,-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def log_pattern(folder: str, job: str) -> str:
    """The name of a log in a folder, for ``--output``: a % of the folder's own stays one.

    Args:
        folder: where to.
        job: %j, or %A_%a for an array.
    """
    return folder.replace("%", "%%") + f"/{job}.log"
