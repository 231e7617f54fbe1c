"""Preflight: is the base there, or can it be fetched from where the job runs?"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from instructedit.base import smollm2
from instructedit.base.checkpoint_files import CONFIG, faults, is_path, no_folder
from instructedit.errors import InputError, unknown
from instructedit.scheduling.preflight.work import Finding, Work

SECONDS = 5.0
"""How long the Hub may take to answer."""


def check_base(work: Work) -> Iterator[Finding]:
    """Find the base's files, or ask the Hub for them where the nodes can."""
    name = base_name(work)
    if work.kind not in ("training", "evaluation"):
        return
    if not name:
        yield Finding("error", f"{_key(work)} is not set. Give a Hub id, a folder, or {smollm2.ALIAS}.")
    elif name == smollm2.ALIAS:
        if not work.elsewhere:  # another Python's packages are not seen from here
            smollm2.find_converted()
    elif is_path(name) and not Path(name).expanduser().is_dir():
        raise no_folder(name)
    elif (folder := base_folder(work)) is not None:
        found = list(faults(name, folder))
        if not found or Path(name).expanduser().is_dir():
            yield from (Finding("error", fault) for fault in found)
        else:
            yield from _from_hub(name, work.offline, f"is only partly in the Hub's cache here: {found[0]}")
    else:
        yield from _from_hub(name, work.offline, "is no folder and not in the Hub's cache here")


def base_name(work: Work) -> str:
    """The base's name in the settings; empty where there is none."""
    return str(work.get(_key(work)) or "") if work.kind in ("training", "evaluation") else ""


def _key(work: Work) -> str:
    return "model.base" if work.kind == "training" else "base"


def base_folder(work: Work) -> Path | None:
    """Where the base's files lie on this machine already; None where they do not. Some may be missing."""
    name = base_name(work)
    if name == smollm2.ALIAS:
        try:
            folder = smollm2.find_converted()
        except InputError:
            return None
        return folder if folder.is_dir() else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if is_path(name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG, cache_dir=work.hub_cache())
    except HFValidationError as error:
        raise unknown("base", name, [smollm2.ALIAS], "Give a Hub id, a local folder or the alias.") from error
    return Path(found).parent if isinstance(found, str) else None


def base_config(work: Work) -> Mapping[str, Any] | None:
    """The base's config.json: from its folder or, where the nodes can fetch it, from the Hub. The alias's is known."""
    name = base_name(work)
    if not name:
        return None
    if name == smollm2.ALIAS:
        return SMOLLM2
    folder = base_folder(work)
    if folder is None:
        return None if work.offline or is_path(name) else _ask_hub(name).config
    try:
        return _mapping((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _mapping(text: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
"""Sizes of the alias's base, which may not have been unpacked yet."""


def fetching(name: str) -> str:
    """The command that puts all of a base that is read into the Hub's cache."""
    patterns = ("*.json", "*.txt", "tokenizer*", "model*.safetensors")
    return f"hf download {shlex.quote(name)} " + " ".join(f"--include {shlex.quote(pattern)}" for pattern in patterns)


def _from_hub(name: str, offline: bool, found: str) -> Iterator[Finding]:
    """Say what will become of a base that has to be fetched."""
    if offline:
        yield Finding(
            "error",
            f"Base {name!r} {found}, and the compute nodes have no internet. Fetch it here first: {fetching(name)}",
        )
        return
    told = _ask_hub(name).refusal
    if told is not None:
        yield told


@dataclass(frozen=True)
class _Answer:
    """The Hub's about a model: why it will not give it to us, or the model's config.json."""

    refusal: Finding | None = None
    config: Mapping[str, Any] | None = None


@cache  # the points of a sweep have one base
def _ask_hub(name: str) -> _Answer:
    """Ask for a model's config.json, which a gated one gives only to those who have access."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.utils import get_session, hf_raise_for_status

    # Not through the package's functions, which may wait for ever.
    token, url = get_token(), f"{constants.ENDPOINT}/{name}/resolve/main/{CONFIG}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    level: Literal["error", "warning"] = "error"
    try:
        answer = get_session().get(url, headers=headers, timeout=SECONDS, follow_redirects=True)
        hf_raise_for_status(answer)
        return _Answer(config=_mapping(answer.text))
    except GatedRepoError:
        told = (
            f"is gated on the Hub and this account has no access. Ask for it on {constants.ENDPOINT}/{name}, then log "
            f"in with `hf auth login`."
        )
    except EntryNotFoundError:
        told = f"has no {CONFIG} on the Hub. Name a model in the format of transformers."
    except Exception as error:  # the Hub's, or those of whichever client its package uses; never with the token
        response = error.response if isinstance(error, HfHubHTTPError) else None
        status = response.status_code if response is not None else None
        if response is not None and "Invalid credentials" in response.headers.get("x-error-message", ""):
            told = "could not be asked for: the Hub does not accept this account's token. Run `hf auth login` again."
        elif isinstance(error, RepositoryNotFoundError) or status == 401:
            # 401: what it answers those who are not logged in about a model that does not exist.
            told = (
                "is no folder, and the Hub has no such model, or not for this account. Correct the name, or log in "
                "with `hf auth login`."
            )
        else:
            level, why = "warning", f"it answered {status}" if status else type(error).__name__
            told = (
                f"is not in the cache here, and the Hub could not be asked about it ({why}). If the compute nodes "
                f"cannot fetch it either, the job fails; to have it here: {fetching(name)}"
            )
    return _Answer(Finding(level, f"Base {name!r} {told}"))
