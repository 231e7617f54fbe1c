"""Benchmarks as modules: they lie in no package and import each other by name."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return import_module(name)


def last_line(output: str) -> dict[str, Any]:
    """What a benchmark prints last, with the machine in it."""
    content: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert set(content["machine"]) == {"cores", "torch", "threads", "dtype"}
    return content
