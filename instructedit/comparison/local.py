"""Reads a run directory, or the part of one that was kept (``results/`` of this repository). Knows files only."""

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from instructedit.comparison.curves import CurveTable, read_curves
from instructedit.comparison.runs import Cell, CellKey, ComparedRun
from instructedit.comparison.settings import flat, texts
from instructedit.errors import InputError
from instructedit.evaluation.metrics import VARIANTS, named
from instructedit.evaluation.report import TITLES
from instructedit.evaluation.tables import summarise
from instructedit.records import Outcome
from instructedit.runs.progress import Progress, read_progress

SILENT_SECONDS = 300.0
"""A run that says it is running and was not heard of for so long is shown with its age."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_run(path: Path, name: str) -> ComparedRun:
    """Read what a run directory tells; what is missing is left out.

    Args:
        path: the directory.
        name: what the run is called among the others.

    Raises:
        InputError: it is no training's directory, or a file of it cannot be read.
    """
    config, record = _config(path / "config.yaml"), _record(path / "run.json")
    curves, notes = read_curves(path / "metrics.csv")
    if not config and not curves and "wandb_id" not in record:
        raise InputError(
            f"{path} is no run directory: it has neither config.yaml nor metrics.csv. Name the directory of a "
            "training, such as runs/NAME, or a folder of them."
        )
    rates, more = read_curves(path / "throughput.csv")
    progress = read_progress(path)
    settings = texts(config)
    cells, outcomes = _tested(path)
    ended = curves.last_step
    return ComparedRun(
        name=name,
        source=str(path),
        settings=settings,
        facts=facts_of(record),
        state=_state(path, progress),
        step=progress.step if progress else ended,
        max_steps=progress.max_steps if progress else _whole(settings.get("trainer.max_steps")),
        edits_per_second=(progress.edits_per_second or None) if progress else None,
        device_hours=_device_hours(progress, rates),
        curves=curves.beside(rates, "throughput/"),
        cells=cells,
        outcomes=outcomes,
        notes=(*notes, *more),
    )


def _config(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}. Restore the file, or leave the run out.") from error
    return content if isinstance(content, dict) else {}


def _record(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. Restore the file, or leave the run out.") from error
    return content if isinstance(content, dict) else {}


def facts_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What a run.json tells of code, base and data; of several starts all commits, and the versions of the last."""
    starts = [start for start in record.get("starts") or [record] if isinstance(start, dict) and "commit" in start]
    commits = list(dict.fromkeys(str(start["commit"])[:12] for start in starts))
    facts = {"commit": ", ".join(commits)} if commits else {}
    if starts:
        facts["dirty"] = "yes" if any(start.get("dirty") for start in starts) else "no"
        facts |= {f"version of {name}": text for name, text in texts(starts[-1].get("versions") or {}).items()}
    if record.get("fingerprint"):
        facts["base fingerprint"] = str(record["fingerprint"])[:12]
    hashes = record.get("data_sha256") or record.get("data") or {}
    return facts | {f"data {split}": str(content)[:12] for split, content in flat(hashes)}


def _state(path: Path, progress: Progress | None) -> str:
    if progress is None:
        return "done" if _first(path, "test.json") else ""
    silent = time.time() - progress.updated
    if progress.state == "running" and silent > SILENT_SECONDS:
        return f"running, silent for {silent / 60:.0f} min"
    return progress.state


def _device_hours(progress: Progress | None, rates: CurveTable) -> float | None:
    if progress and progress.device_seconds:
        return progress.device_seconds / 3600
    told = rates.get("device_seconds")
    return told.values[-1] / 3600 if told and told.values else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _first(path: Path, *names: str) -> Path | None:
    """The first of these files that is there, in results/ or beside the configuration."""
    places = (folder / name for name in names for folder in (path / "results", path))
    return next((place for place in places if place.is_file()), None)


def _tested(path: Path) -> tuple[dict[CellKey, Cell], Callable[[], Sequence[Outcome]] | None]:
    """The test table, from test.json, which holds what the rows average to, else from the rows; and what reads them."""
    rows, table = _first(path, "test.jsonl", "test.jsonl.gz"), _first(path, "test.json")
    if rows is None:
        return (_from_json(table) if table else {}), None
    if table:
        return _from_json(table), partial(read_outcomes, rows)
    found = read_outcomes(rows)
    return _from_outcomes(found), lambda: found


def _from_json(path: Path) -> dict[CellKey, Cell]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            (line.split(" / ", 1)[0], line.split(" / ", 1)[1], named(metric, variant)): Cell(**cell)
            for variant, title in TITLES.items()
            for line, cells in content.get(title, {}).items()
            for metric, cell in cells.items()
        }
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is no test table: {error}. Make it again with `instructedit test`.") from error


def _from_outcomes(outcomes: Sequence[Outcome]) -> dict[CellKey, Cell]:
    return {
        (line.task, line.method, named(metric, variant)): Cell(cell.mean, cell.low, cell.high, cell.n)
        for variant in VARIANTS
        for line in summarise(outcomes, variant=variant)
        for metric, cell in line.cells.items()
    }


def read_outcomes(path: Path) -> list[Outcome]:
    """Read a test's numbers per record, compressed or not.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        # As one list: many times faster than line by line.
        lines = json.loads(f"[{','.join(line for line in text.decode().split(chr(10)) if line)}]")
        return [Outcome(line["id"], line["task"], line["method"], line["metric"], line["value"]) for line in lines]
    except (ValueError, TypeError, KeyError, OSError, EOFError) as error:
        raise InputError(f"{path} holds no test rows: {error!r}. Make it again with `instructedit test`.") from error
