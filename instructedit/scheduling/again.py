"""What is kept of a submitted task for `submit --resume`: a small file beside its script.

Knows that file. What becomes of it, `instructedit.scheduling.resume` decides.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.runs.jobs import FOLDER
from instructedit.scheduling.profile import Profile, as_content, make_profile
from instructedit.scheduling.resources import Resources


@dataclass(frozen=True)
class Link:
    """One step of a chain, by the place of its files.

    Args:
        home: the folder whose slurm/ holds its script, as seen from where it was submitted.
        stem: the name of its files there.
        group: whether it is an array, whose runs lie in that folder.
    """

    home: str
    stem: str
    group: bool = False


@dataclass(frozen=True)
class Again:
    """What is kept of a task, or of an array as a whole.

    Args:
        words: the program's command, such as ``("prepare", "--trunk")``.
        arguments: all of the program's arguments, these words first; of an array, the words alone.
        frozen: whether the first argument behind the words is the configuration that lies beside this file.
        folder: where it was submitted.
        resources: what its job asked for.
        profile: the site's, as it was.
        chain: all steps it was submitted with, itself among them.
        writes: where it writes what later steps may read.
        at_once: of an array, how many tasks may run at the same time.
    """

    words: tuple[str, ...]
    arguments: tuple[str, ...]
    frozen: bool
    folder: str
    resources: Resources
    profile: Profile
    chain: tuple[Link, ...]
    writes: tuple[str, ...] = ()
    at_once: int | None = None

    def seen(self, path: str) -> Path:
        """A path of the folder it was submitted in, as seen from here."""
        return Path(path) if Path(self.folder) == Path.cwd() else Path(self.folder) / path


def again_text(again: Again) -> str:
    """The file's text."""
    content = dataclasses.asdict(again) | {"profile": as_content(again.profile)}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read_again(home: Path, stem: str) -> Again | None:
    """What a task was submitted with; None where it was not.

    Args:
        home: a run, a group, or the folder of another command.
        stem: the name of its files.

    Raises:
        InputError: the file cannot be read.
    """
    path = home / FOLDER / f"{stem}.json"
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        resources = Resources(**content["resources"] | {"options": tuple(content["resources"]["options"])})
        lists = {name: tuple(content[name]) for name in ("words", "arguments", "writes")}
        chain = tuple(Link(**link) for link in content["chain"])
        profile = make_profile(content["profile"], str(path))
        if content["frozen"] and not lists["arguments"][len(lists["words"]) :]:
            raise ValueError("arguments name no configuration")
        return Again(**{**content, **lists, "resources": resources, "profile": profile, "chain": chain})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be read ({told}). Submit the run again from its configuration.") from error
