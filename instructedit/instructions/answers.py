r"""From a model's answer to single descriptions: lists with numbers or bullets, JSON, code fences, plain lines.

Knows texts only; whether a description is usable, `instructedit.instructions.screen` decides.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^\s*(?:```|~~~)[\w+-]*\s*$", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:#{1,6}\s+)?(?:\*\*)?(?:\(?\d{1,3}[.):\]]|[-*\u2022\u2013\u2014+])(?:\*\*)?\s+(?=\S)")
_LABEL = re.compile(r"^(?:description|instruction|task)(?: \d+)?\s*[:.-]\s+", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)"(?!\s*:)')
_TITLE = re.compile(r"^\*\*[^*]{1,60}?(?::\*\*|\*\*\s*:)\s+(?=(?:\S+\s+){3})")
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "`": "`"}


def descriptions_in(answer: str) -> list[str]:
    r"""Return the descriptions of an answer in their order, each in one line without numbers, bullets and quotes.

    >>> descriptions_in('Sure!\n1. Change the fact.\n2) "Keep the\n   others."\n')
    ['Change the fact.', 'Keep the others.']
    >>> descriptions_in('```json\n{"descriptions": ["Change the fact.", {"text": "Keep others."}]}\n```')
    ['Change the fact.', 'Keep others.']

    Args:
        answer: anything.
    """
    text = _THOUGHT.sub("", answer)
    found = _from_json(text)
    if found is None:
        found = list(_from_lines(_FENCE.sub("", text)))
    return [clean for each in found if (clean := _clean(each))]


def _from_json(text: str) -> list[str] | None:
    """Return the texts of all JSON lists and objects that hold some, one after another; None where there is none."""
    decoder, found, end = json.JSONDecoder(), list[str](), 0
    for start in re.finditer(r"[\[{]", text):
        if start.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        found += _texts(value)
    if found:
        return found
    # Cut off, or with a comma too many: what is a whole string and no name of a field.
    begun = re.match(r"\s*[\[{]\s*[\[{\"]", _FENCE.sub("", text))
    return [json.loads(f'"{each}"', strict=False) for each in _STRING.findall(text)] if begun else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        named = [value[name] for name in ("description", "text", "instruction") if isinstance(value.get(name), str)]
        # An object of one description, or one that holds a list of them somewhere.
        yield from named[:1] or [text for each in value.values() for text in _texts(each)]


def _from_lines(text: str) -> Iterator[str]:
    lines = text.splitlines()
    listed = any(_ITEM.match(line) for line in lines)
    item: list[str] = []
    for line in lines:
        begins = _ITEM.match(line)
        if begins or not line.strip() or not listed:
            if item:
                yield " ".join(item)
            item = []
        if begins:
            item = [line[begins.end() :]]
        elif line.strip() and (item or not listed):
            item.append(line)
    if item:
        yield " ".join(item)


def _clean(text: str) -> str:
    text = " ".join(text.split())
    text = _TITLE.sub("", text)
    text = re.sub(r"\*\*|__", "", text).strip()
    text = _LABEL.sub("", text)
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text.rstrip(",;").strip()
