"""Where a pool comes from, for its card: model, server, code, data and settings; no path of this machine, no key."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.instructions.loop_record import LoopRecord

if TYPE_CHECKING:
    from instructedit.instructions.trial import TrialEditor


def provenance(record: LoopRecord, editor: "TrialEditor", host: str) -> dict[str, Any]:
    """Return what the card says of a run: the model as named and as it answered, and what measured its texts."""
    run, asks, trial = record.run, record.all("ask"), editor.settings
    begun, code = run["starts"][0], run["starts"][-1]
    own = {name: value for name, value in asdict(trial).items() if name not in ("data", "base", "edits_at_once")}
    return {
        "model": _named(json.loads(run["settings"]["model"])),
        "answered as": sorted({Path(line["answer"]["model"]).name for line in asks if line["answer"]["model"]}),
        "server": host,
        "begun": begun["at"],
        "latest answer": asks[-1]["at"] if asks else "",
        "commit": code["commit"],
        "dirty": code["dirty"],
        "versions": code["versions"],
        "base": _named(trial.base),
        "base fingerprint": editor.fingerprint,
        "data sha256": editor.hashes,
        "records scored": len(editor.records.validation),
        "seeds": [json.loads(run["settings"]["seed"]) + number for number in range(trial.seeds)],
        "trial": own,
    }


def _named(model: str) -> str:
    """A model's name for others to read: of a path of this machine its last part alone."""
    return Path(model).name if model[:1] in "/.~" or Path(model).is_dir() else model
