"""Loading: a Hub id, a local folder or an alias becomes a folder of files, and that becomes a Base.

Knows nothing about edits. No code that comes with a model is ever run, and only safetensors
weights are read.
"""

from pathlib import Path
from typing import Literal, get_args

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from instructedit.base import smollm2
from instructedit.base.adaptors import adaptor_for
from instructedit.base.checkpoint_files import TOKENIZER, WEIGHTS, check_vocabulary, is_path, no_folder, weight_files
from instructedit.base.fingerprint import fingerprint_of_files
from instructedit.base.model import Base
from instructedit.base.paging import Pager, without_weights
from instructedit.base.progress import quiet_progress
from instructedit.base.weight_files import WeightFiles, lacking
from instructedit.errors import InputError, unknown

ALIASES = {smollm2.ALIAS: smollm2.converted_folder}
"""Names for bases that come from elsewhere than the Hub; each makes its folder when called."""

Placement = Literal["replicated", "tail_only"]
"""``replicated``: all of a base is on its device. ``tail_only``: from a block on that ``Base.keep_tail`` says."""


def load_base(
    name_or_path: str,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    placement: Placement = "replicated",
    trunk_device: str | torch.device | None = None,
) -> Base:
    """Load a base: frozen, in ``eval()``, in the dtype and on the device asked for.

    Args:
        name_or_path: a Hub id such as ``"gpt2-xl"``, a folder, or an alias such as ``"smollm2-135m"``.
        dtype: dtype of the weights in memory; the fingerprint does not depend on it.
        device: where the weights go.
        placement: ``"tail_only"`` puts the last norm and the head on the device, and from ``Base.keep_tail(block)``
            on the blocks from that one on; each block below is read from its file when it runs, and let go of.
        trunk_device: where those blocks run, under ``tail_only``; None is the device.

    Raises:
        InputError: when nothing is found under the name, it cannot be read, weights are missing, or
            its architecture or the placement is not supported.
    """
    if placement not in get_args(Placement):
        raise unknown("placement", placement, get_args(Placement))
    if trunk_device is not None and placement != "tail_only":
        raise InputError(f"A trunk device was given ({trunk_device}), but the placement is {placement}, not tail_only.")
    folder = _folder(name_or_path, [*TOKENIZER, *WEIGHTS])
    config = _config(name_or_path, folder)
    files = weight_files(name_or_path, folder)
    tokenizer = _tokenizer(name_or_path, folder)

    def fingerprint() -> str:
        return fingerprint_of_files(config, files)

    if placement == "replicated":
        model = _whole(name_or_path, folder, config, dtype)
        return Base(model.to(device), tokenizer, name_or_path, fingerprint)
    model = _empty(name_or_path, folder, config, dtype)
    weights = WeightFiles(files, model, name_or_path)
    pager = Pager(model, adaptor_for(model), weights, dtype, device, trunk_device or device)
    return Base(model, tokenizer, name_or_path, fingerprint, pager)


def base_fingerprint(name_or_path: str) -> str:
    """Return the fingerprint that ``load_base(name_or_path)`` will have, without loading it.

    Raises:
        InputError: as ``load_base``, where it concerns files.
    """
    folder = _folder(name_or_path, [*TOKENIZER, *WEIGHTS])
    return fingerprint_of_files(_config(name_or_path, folder), weight_files(name_or_path, folder))


def stored_dtype(name_or_path: str) -> str:
    """Return the dtype a base's config says its weights are stored in: float32 where it says none, or another one.

    Raises:
        InputError: as ``load_base``, where it concerns the config.
    """
    found = str(_config(name_or_path, _folder(name_or_path, TOKENIZER)).dtype).removeprefix("torch.")
    return found if found in ("float32", "bfloat16", "float16") else "float32"


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Load a base's fast tokenizer alone; from the Hub, without its weights.

    Raises:
        InputError: as ``load_base``, and where the tokenizer is not a fast one.
    """
    return _tokenizer(name_or_path, _folder(name_or_path, TOKENIZER))


def _folder(name: str, wanted: list[str]) -> Path:
    """Find the folder that holds a base's files, fetching or making it where need be."""
    if name in ALIASES:
        return ALIASES[name]()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if is_path(name):
        raise no_folder(name)
    return _from_hub(name, wanted)


def _whole(name: str, folder: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    try:
        with quiet_progress():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"Cannot load base {name!r} from {folder}: {_first_line(error)}") from error
    # transformers fills what a checkpoint lacks with random numbers and only warns.
    if report["missing_keys"]:
        raise lacking(name, model, report["missing_keys"])
    assert isinstance(model, PreTrainedModel)
    return model


def _empty(name: str, folder: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build the model without its weights, with the generation settings that ``from_pretrained`` would give it."""
    try:
        with quiet_progress():
            model = without_weights(config, dtype)
            if (folder / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Cannot load base {name!r} from {folder}: {_first_line(error)}") from error
    return model


def _from_hub(name: str, wanted: list[str]) -> Path:
    advice = "Give a Hub id, a local folder or a known alias."
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except GatedRepoError as error:
        raise InputError(
            f"Base {name!r} is gated on the Hub: ask for access on its page, then log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise unknown("base", name, ALIASES, f"There is no such folder and no such Hub model. {advice}") from error
    except LocalEntryNotFoundError as error:
        raise unknown(
            "base",
            name,
            ALIASES,
            f"It is no folder, not in the local Hub cache, and the Hub cannot be reached. {advice}",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise InputError(f"Cannot fetch base {name!r} from the Hub: {_first_line(error)} {advice}") from error


def _config(name: str, folder: Path) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Base {name!r} has no usable config.json in {folder}: {_first_line(error)}") from error
    assert isinstance(config, PretrainedConfig)
    return config


def _tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    # For some families transformers makes up an empty tokenizer where none was saved.
    check_vocabulary(name, folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, use_fast=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise InputError(f"Base {name!r} has no usable tokenizer in {folder}: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"The tokenizer of base {name!r} is not a fast one. Add its tokenizer.json to {folder}.")
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
