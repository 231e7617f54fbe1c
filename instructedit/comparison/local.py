"""Reads a run directory, or the part of one that was kept (``results/`` of this repository). Knows files only."""

import gzip
import json
import os
import time
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from instructedit.comparison.curves import DIGITS, CurveTable, read_curves
from instructedit.comparison.runs import Cell, CellKey, ComparedRun, Rows, is_mean
from instructedit.comparison.settings import flat, texts
from instructedit.errors import InputError
from instructedit.evaluation.metrics import VARIANTS, named
from instructedit.evaluation.report import TITLES
from instructedit.evaluation.tables import summarise
from instructedit.records import Outcome
from instructedit.runs.progress import Progress, look_for_progress

SILENT_SECONDS = 300.0
"""A run that says it is running and was not heard of for so long is shown with its age."""

T = TypeVar("T")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_run(path: Path, name: str) -> ComparedRun:
    """Read what a run directory tells; what is missing is left out.

    Args:
        path: the directory.
        name: what the run is called among the others.

    Raises:
        InputError: it is no training's directory, or a file of it cannot be read.
    """
    notes: list[str] = []
    config = _or_told(partial(_config, path / "config.yaml"), notes) or {}
    settings = _or_told(partial(_settings, config, path / "config.yaml"), notes) or {}
    record = _or_told(partial(_record, path / "run.json"), notes) or {}
    curves, torn = _or_told(partial(read_curves, path / "metrics.csv"), notes) or NO_CURVES
    rates, torn_too = _or_told(partial(read_curves, path / "throughput.csv"), notes) or NO_CURVES
    if not config and not curves and "wandb_id" not in record:
        raise InputError(
            " ".join(notes)
            or f"{path} is no run directory: it has neither config.yaml nor metrics.csv. Name the directory of a "
            "training, such as runs/NAME, or a folder of them."
        )
    progress, wrong = look_for_progress(path)
    notes += [f"{path}: {wrong}."] if wrong else []
    cells, outcomes = _tested(path, notes)
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
        notes=(*notes, *torn, *torn_too),
    )


NO_CURVES: tuple[CurveTable, tuple[str, ...]] = CurveTable([], {}), ()


def _or_told(read: Callable[[], T], notes: list[str]) -> T | None:
    """What a file holds; where it cannot be used, a note tells that, and the rest of the run is shown without it."""
    try:
        return read()
    except InputError as error:
        notes.append(str(error))
        return None


def _config(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, error) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {error}. Restore the file, or leave the run out.") from error
    return content if isinstance(content, dict) else {}


def _settings(config: Mapping[str, Any], path: Path) -> dict[str, str]:
    try:
        return texts(config)
    except (ValueError, TypeError, RecursionError) as error:  # YAML can hold itself, and keys of any kind
        raise InputError(f"{path} is no configuration: {error}. Restore the file, or leave the run out.") from error


def _record(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}. Restore the file, or leave the run out.") from error
    return content if isinstance(content, dict) else {}


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"Cannot read {path}: {error.strerror}. Ask its owner, or leave the run out.")


def facts_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What a run.json tells of code, base and data; of several starts all commits, and the versions of the last."""
    listed = record.get("starts") or [record]
    listed = listed if isinstance(listed, list) else []
    starts = [start for start in listed if isinstance(start, dict) and "commit" in start]
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
    return int(text) if text and text.isdecimal() and len(text) <= DIGITS else None


def _first(path: Path, *names: str) -> Path | None:
    """The first of these files that is there, in results/ or beside the configuration."""
    places = (folder / name for name in names for folder in (path / "results", path))
    return next((place for place in places if os.path.isfile(place)), None)


def _tested(path: Path, notes: list[str]) -> tuple[dict[CellKey, Cell], Rows | None]:
    """The test table, from test.json, which holds what the rows average to, else from the rows; and what reads them.

    Args:
        path: the run directory.
        notes: grows by a line for each file that cannot be used.
    """
    if os.path.isdir(path / "results") and not os.access(path / "results", os.X_OK):
        notes.append(f"Cannot read {path / 'results'}: Permission denied. Ask its owner, or leave the run out.")
    rows, table = _first(path, "test.jsonl", "test.jsonl.gz"), _first(path, "test.json")
    cells = (_or_told(partial(_from_json, table, notes), notes) if table else None) or {}
    if rows is None:
        return cells, None
    if cells:
        return cells, partial(read_outcomes, rows)
    found = _or_told(partial(read_outcomes, rows), notes) or []
    cells = _or_told(partial(_from_outcomes, found), notes) or {}
    return cells, partial(_chosen, found) if cells else None


def _chosen(outcomes: Sequence[Outcome], method: str = "", metrics: Container[str] = ()) -> Sequence[Outcome]:
    """As ``read_outcomes``, of what was read already."""
    return [each for each in outcomes if each.method == method and each.metric in metrics] if method else outcomes


def _from_json(path: Path, notes: list[str]) -> dict[CellKey, Cell]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {
            (line.split(" / ", 1)[0], line.split(" / ", 1)[1], named(metric, variant)): _cell(cell)
            for variant, title in TITLES.items()
            for line, cells in content.get(title, {}).items()
            for metric, cell in cells.items()
        }
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"{path} is no test table: {error}. Make it again with `instructedit test`.") from error
    kept = {key: cell for key, cell in found.items() if cell is not None}
    if len(kept) < len(found):
        left = len(found) - len(kept)
        notes.append(f"{path}: {left} value{'s' if left > 1 else ''} left out that no test gives, such as no number.")
    return kept


def _cell(content: Mapping[str, Any]) -> Cell | None:
    """A number of a test table; None for what is no share of anything."""
    cell = Cell(**content)
    if not is_mean(cell.mean):
        return None
    low, high = (end if is_mean(end) else None for end in (cell.low, cell.high))
    return Cell(cell.mean, low, high, cell.n if isinstance(cell.n, int) else None)


def _from_outcomes(outcomes: Sequence[Outcome]) -> dict[CellKey, Cell]:
    return {
        (line.task, line.method, named(metric, variant)): Cell(cell.mean, cell.low, cell.high, cell.n)
        for variant in VARIANTS
        for line in summarise(outcomes, variant=variant)
        for metric, cell in line.cells.items()
    }


def read_outcomes(path: Path, method: str = "", metrics: Container[str] = ()) -> list[Outcome]:
    """Read a test's numbers per record, compressed or not.

    Args:
        path: the file.
        method: only this row of the table; all of them without.
        metrics: of it, these.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        # As one list: many times faster than line by line.
        lines = json.loads(f"[{','.join(line for line in text.decode().split(chr(10)) if line)}]")
        if method:
            lines = [line for line in lines if line["method"] == method and line["metric"] in metrics]
        found = [Outcome(line["id"], line["task"], line["method"], line["metric"], line["value"]) for line in lines]
    except OSError as error:
        if error.strerror:
            raise _unreadable(path, error) from error
        raise InputError(f"{path} holds no test rows: {error}. Make it again with `instructedit test`.") from error
    except (ValueError, TypeError, KeyError, EOFError, zlib.error, RecursionError) as error:
        raise InputError(f"{path} holds no test rows: {error!r}. Make it again with `instructedit test`.") from error
    if not all(is_mean(outcome.value) for outcome in found):
        raise InputError(f"{path} holds values that no test gives, such as no number. Make it again.")
    return found
