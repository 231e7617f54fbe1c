"""LaTeX tables: escaped, balanced, and with what the others have. There is no TeX engine to ask."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructedit.evaluation.latex import escape, to_latex
from instructedit.evaluation.layout import make_table
from instructedit.records import Outcome
from tests.evaluation.test_formats import table

COMMANDS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textquotedblright{}": '"',
    r"\textasciigrave{}": "`",
    r"\textdagger{}": "†",
    r"\textdaggerdbl{}": "‡",
}


def printed_by_tex(latex: str) -> str:
    """Read escaped text the way TeX would; raises where a character would do something else than print itself."""
    text, rest = "", latex
    while rest:
        if command := re.match(r"\\[a-zA-Z]+\{\}", rest):
            text, rest = text + COMMANDS[command[0]], rest[len(command[0]) :]
        elif symbol := re.match(r"\\([{}$&#%_])", rest):
            text, rest = text + symbol[1], rest[2:]
        elif rest.startswith("{}"):
            rest = rest[2:]
        else:
            assert rest[0] not in '\\{}$&#%_~^<>|"`' and rest[:2] not in ("--", "''"), rest
            text, rest = text + rest[0], rest[1:]
    return text


@given(st.text(st.one_of(st.sampled_from("\\{}$&#%_~^<>|\"'`-†‡ \n"), st.characters())))
def test_escaped_text_prints_as_what_it_was(text: str) -> None:
    expected = "".join(character for character in " ".join(text.split()) if character.isprintable())
    assert printed_by_tex(escape(text)) == expected


def test_escapes_by_example() -> None:
    assert escape("50 % of a_b & {c} \n on C:\\d -- #1") == (r"50 \% of a\_b \& \{c\} on C:\textbackslash{}d -{}- \#1")


def strange() -> str:
    made = [
        Outcome("r", "a_b & c", method, metric, value)
        for method, value in (("Base", 0.0), ("[x] 100%", 0.5), ("{y}\\", 0.9))
        for metric in ("reliability", "locality")
    ]
    return to_latex(make_table(made, "Tokens & #1", stamp={"dirty": True}))


@pytest.mark.parametrize("latex", [strange(), to_latex(table(paper="gpt2-xl", stamp={"base": "x_y"}))])
def test_environments_braces_and_cells_balance(latex: str) -> None:
    bare = re.sub(r"\\\\|\\[{}$&#%_]", " ", latex)
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", latex):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", latex)
    body = latex.split("\\toprule\n")[1].split("\\bottomrule")[0]
    assert all(row.endswith(r" \\") for row in body.splitlines() if row != r"\midrule")
    for row in body.replace("\\midrule\n", "").removesuffix(" \\\\\n").split(" \\\\\n"):
        assert not row.lstrip().startswith(("[", "*")), "the line end before it would take the bracket"
        spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
        assert len(re.sub(r"\\&", "", row).split("&")) + spans == len(columns)


def test_every_command_is_latex_or_booktabs() -> None:
    known = "begin end centering small caption label toprule midrule bottomrule multicolumn textbf underline"
    known += " quad scriptsize textbackslash textdagger textdaggerdbl"
    assert set(re.findall(r"\\([a-zA-Z]+)", strange() + to_latex(table(paper="gpt2-xl")))) <= set(known.split())


def test_marks_intervals_paper_warning_and_label() -> None:
    latex = to_latex(table(paper="gpt2-xl", held_out=("zsre",), stamp={"dirty": True}))
    lines = latex.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(r"\quad MEND & 4 &"))
    assert lines[at] == r"\quad MEND & 4 & \underline{55.0} & -- & \textbf{70.0} & \textbf{25.0} & 610.5 \\"
    assert r"{\scriptsize [25.0, 25.0] (1)}" in lines[at + 1] and lines[at + 1].startswith(" &  & ")
    assert lines[at + 2].startswith(
        r"\quad {\scriptsize paper, GPT2-XL} &  & {\scriptsize 85.6} & {\scriptsize 52.8} &"
    )
    assert r"\caption{Test records. \textbf{DIRTY: " in latex and "second best underlined" in latex
    assert r"\label{tab:test-records}" in latex and r"\textbf{zsre (held out)}" in latex
    assert r"\label{tab:own}" in to_latex(table(), "own")
    assert r"\label{tab:results}" in to_latex(make_table([]))
