"""The model card of an exported edit: a README.md with the Hub's front matter.

Knows what is told of an edit; every text from outside is escaped. Nothing here measures anything.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCardData

from instructedit import __version__
from instructedit.export.changes import SiteReport, total_error
from instructedit.export.origin import UNKNOWN, Origin
from instructedit.export.snippets import Form, asking_lines, loading_lines
from instructedit.terminal import shown

CARD_FILE = "README.md"

MOST_REQUESTS = 50
"""So many requests are listed; of more, their number."""

LIBRARY = {"lora": "peft", "model": "transformers", "delta": "instructedit"}
RELATION = {"lora": "adapter", "model": "finetune", "delta": "adapter"}
WHAT = {"lora": "LoRA adapter", "model": "Model with the edit in its weights", "delta": "Change of the weights"}


@dataclass(frozen=True)
class EditFacts:
    """What is told of an edit besides what it changes.

    Args:
        kind: its kind, such as ``"HyperEdit"``.
        fingerprint: the base's.
        base_dtype: dtype of the base it was made on, such as ``"float32"``.
        requests: what it was asked for, each with ``prompt`` and ``target``; empty where its file does not say.
        editor: what made it; empty where its file does not say.
    """

    kind: str
    fingerprint: str
    base_dtype: str
    requests: tuple[Mapping[str, Any], ...] = ()
    editor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, fingerprint: str, dtype: str, about: Mapping[str, Any]) -> "EditFacts":
        """Take what can be used of a file's ``about``, which anybody may have written."""
        requests, editor = about.get("requests"), about.get("editor")
        return cls(
            kind=kind,
            fingerprint=fingerprint,
            base_dtype=dtype.removeprefix("torch.") or "float32",
            requests=tuple(
                request
                for request in (requests if isinstance(requests, list) else [])
                if isinstance(request, dict) and isinstance(request.get("prompt"), str)
            ),
            editor=editor if isinstance(editor, dict) else {},
        )

    def about(self) -> dict[str, Any]:
        """Return requests and editor as JSON values, for a file's metadata."""
        return {"requests": list(self.requests), "editor": dict(self.editor)}


def edit_card(
    form: Form,
    origin: Origin,
    facts: EditFacts,
    reports: Sequence[SiteReport],
    dtype: str,
    checked: str = "",
) -> str:
    """Write the card of an exported edit.

    Args:
        form: what it was exported as.
        origin: the base.
        facts: what is told of the edit.
        reports: what was kept of each site's change.
        dtype: dtype in the file, such as ``"float32"``.
        checked: what was found when it was loaded again, a sentence or nothing.
    """
    tags = ["knowledge-editing", "model-editing", "instructedit", *(["lora"] if form == "lora" else [])]
    parts = [
        front_matter(origin, LIBRARY[form], tags, base_model_relation=RELATION[form] if origin.named_base else None),
        f"# {WHAT[form]}: {cell(origin.name)}, {_counted(facts)}",
        "A knowledge edit of a language model, made and exported with InstructEdit. It makes the model say what the "
        "requests below ask for; whether that is true was up to whoever asked, and neighbouring answers may have "
        "changed with it.",
        "## Load it",
        code(loading_lines(form, ".", origin, facts.base_dtype, local=False) + _question(facts)),
        _load_note(form, origin),
        "## Requests",
        _requests(facts),
        "## Editor",
        _editor(facts),
        "## Measured",
        _measured(form, reports, dtype),
        checked,
        "## Base and licence",
        _base(origin, facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(
    origin: Origin,
    library: str,
    tags: Sequence[str],
    licence: str | None = None,
    base_model_relation: str | None = None,
) -> str:
    """The block of YAML a card begins with; a base that is not on the Hub is not named, the Hub would refuse it."""
    more = {} if base_model_relation is None else {"base_model_relation": base_model_relation}
    data = ModelCardData(
        base_model=origin.named_base,
        library_name=library,
        license=licence or origin.licence,
        pipeline_tag="text-generation",
        tags=list(tags),
        **more,
    )
    return f"---\n{data.to_yaml()}\n---"


def cell(text: object) -> str:
    r"""A text from outside in one line of Markdown, in a table too: nothing in it is markup.

    >>> cell("a|b <i>\n*c*")
    'a&#124;b &lt;i&gt; &#42;c&#42;'
    """
    plain = html.escape(shown(" ".join(str(text).split())), quote=False)
    # An underscore inside a word, as in a site's name, is no markup.
    return re.sub(r"[|*`\[\]\\#~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", lambda sign: f"&#{ord(sign[0])};", plain)


def code(lines: Sequence[str]) -> str:
    """Lines of Python as a block of Markdown."""
    return "\n".join(["```python", *lines, "```"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts from outside as a table."""
    lines = [head, ["---"] * len(head), *[[cell(value) for value in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _counted(facts: EditFacts) -> str:
    n = len(facts.requests)
    return "edited" if n == 0 else "1 request" if n == 1 else f"{n} requests"


def _question(facts: EditFacts) -> list[str]:
    if not facts.requests:
        return []
    first = facts.requests[0]
    return asking_lines(str(first.get("instruction") or "") + first["prompt"])


def _requests(facts: EditFacts) -> str:
    if not facts.requests:
        return "Its file does not say what was asked for."
    listed = facts.requests[:MOST_REQUESTS]
    names = [name for name in ("task", "instruction") if any(request.get(name) for request in listed)]
    rows = table(
        ("prompt", "target", *names),
        [[str(request.get(name) or "") for name in ("prompt", "target", *names)] for request in listed],
    )
    more = len(facts.requests) - len(listed)
    told = "\n\nThe instruction stands in front of the prompt." if "instruction" in names else ""
    return rows + (f"\n\nAnd {more} more." if more else "") + told


def _editor(facts: EditFacts) -> str:
    rows = [("kind of edit", facts.kind)]
    for name, value in facts.editor.items():
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = ", ".join(value)
        if value not in ("", None):
            rows.append((str(name), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    rows.append(("exported with", f"instructedit {__version__}"))
    return table(("", ""), rows)


def _measured(form: Form, reports: Sequence[SiteReport], dtype: str) -> str:
    rows = [
        (report.site, "whole" if report.rank is None else str(report.rank), f"{report.norm:.4g}", told(report.relative))
        for report in reports
    ]
    what = "rounding the sum" if form == "model" else "the file against the edit"
    lines = [
        f"Numbers are {dtype}. The error is that of {what}, in Frobenius norm, as a share of the change's own norm: "
        f"{told(total_error(reports))} over all sites.",
        table(("site", "rank", "norm of the change", "error"), rows),
    ]
    return "\n\n".join(lines)


def told(share: float) -> str:
    """An error as a card and the command write it.

    >>> told(0.0), told(1.23e-8), told(0.0312)
    ('0 (exact)', '1.2e-08', '0.031')
    """
    return "0 (exact)" if share == 0 else f"{share:.2g}"


def _base(origin: Origin, facts: EditFacts) -> str:
    known = origin.licence != UNKNOWN
    return (
        f"Base: {base_link(origin)}, edited in {cell(facts.base_dtype)}, "
        f"fingerprint `{cell(facts.fingerprint[:16])}`. {origin.note}".rstrip()
        + f"\n\nLicence: {cell(origin.licence)}"
        + (
            ", the base's own; an edit of it is bound by it."
            if known
            else ". The base's own licence applies; it was "
            "not found: export again with --license before you share this."
        )
    )


def _load_note(form: Form, origin: Origin) -> str:
    if form == "model":
        return "Replace `.` by this folder, or by its name on the Hub. It is an ordinary transformers model."
    return (
        "Replace `.` by this folder, or by its name on the Hub. It fits its base's very weights, told below by their "
        "fingerprint, and no others."
        if form == "lora"
        else "Replace `.` by this folder. It fits its base's very weights."
    )


def base_name(origin: Origin) -> str:
    """What a base is loaded as: its Hub id, or the name it has here."""
    return origin.hub_id or origin.name


def base_link(origin: Origin) -> str:
    """A base's name in a sentence; the Hub makes a link of the id in the front matter."""
    return cell(base_name(origin))
