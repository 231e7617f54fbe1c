"""Names from outside on a terminal, and as words of a command that is printed to be copied."""

import os
import subprocess
from pathlib import Path

import pytest

from instructedit.cli import main
from instructedit.terminal import quoted, shown

HOSTILE = (
    "runs/a b",
    "two  spaces",
    "runs/$(touch pwn); rm -rf ~",
    'it\'s "quoted" `x` \\ *',
    "-rf",
    "line\nbreak\x1b[31m",
    "café",
    os.fsdecode(b"caf\xe9' "),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_quoted_path_is_one_word_of_the_shell(name: str) -> None:
    """Each byte of it arrives; a leading dash is no flag."""
    word = quoted(Path(name))
    assert shown(word) == word
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout.removeprefix(b"./") == os.fsencode(name)
    assert not done.stdout.startswith(b"-")


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert shown("a\x1b]0;x\x07\nb\u202e") == "a\\x1b]0;x\\x07\\nb\\u202e"
    assert shown(os.fsdecode(b"\xe9")) == "\\xe9" and shown("Größe 1 µ, 木") == "Größe 1 µ, 木"


def test_an_error_with_a_hostile_name_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", "\x1b[31mred\x07"])
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err and "\x07" not in err and "[31mred" in err
