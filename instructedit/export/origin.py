"""What a base is to people on other machines: its id on the Hub, its licence, and how plain transformers loads it.

Knows names and cards of models; loads no weights.
"""

from dataclasses import dataclass
from pathlib import Path

from instructedit.base import smollm2
from instructedit.base.checkpoint_files import is_path
from instructedit.base.loading import ALIASES
from instructedit.errors import InputError
from instructedit.hub import hub_errors
from instructedit.terminal import shown

UNKNOWN = "unknown"
"""What the Hub calls a licence nobody has told."""


@dataclass(frozen=True)
class Origin:
    """A base as a card tells of it.

    Args:
        name: its Hub id or alias; of a folder its last name alone, since paths are this machine's business.
        hub_id: the Hub id of the very weights; None where there is none or it is not known.
        named_base: the Hub id a card may name as the base, also where its weights are not the same to the bit.
        licence: as the Hub spells it, such as ``apache-2.0``; or ``unknown``.
        loads: what transformers loads it from on this machine: an id or a folder.
        note: what else there is to say, a sentence or nothing.
    """

    name: str
    hub_id: str | None
    named_base: str | None
    licence: str
    loads: str
    note: str = ""


def origin_of(name: str, hub_base: str | None = None, licence: str | None = None, here: bool = True) -> Origin:
    """Find out what a base is called elsewhere.

    Args:
        name: what it is loaded as: a Hub id, a folder, an alias.
        hub_base: its id on the Hub, for a base that is a folder here.
        licence: its licence; None takes what its own card says.
        here: whether the base is on this machine or to be fetched; otherwise nothing is asked or made for it.

    Raises:
        InputError: ``hub_base`` is no Hub id.
    """
    if hub_base is not None:
        check_repo(hub_base, "--hub-base")
    if name == smollm2.ALIAS:
        return Origin(
            name=name,
            hub_id=hub_base,
            named_base=hub_base or smollm2.HUB_ID,
            licence=licence or smollm2.LICENCE,
            loads=str(smollm2.converted_folder()) if here else name,
            note=f"Its weights come from the Python package {smollm2.PACKAGE}, where {smollm2.HUB_ID} is stored in 4 "
            "bits: they are not the Hub's to the bit.",
        )
    folder = Path(name).expanduser()
    if folder.is_dir() or is_path(name):
        return Origin(
            name=shown(folder.resolve().name),
            hub_id=hub_base,
            named_base=hub_base,
            licence=licence or _licence_in(folder / "README.md"),
            loads=str(folder.resolve()),
            note="" if hub_base else "It was loaded from a folder; where it is published was not told.",
        )
    extras = fetch_extras(name) if here else None
    found = _licence_in(extras / "README.md") if extras else UNKNOWN
    return Origin(name, hub_base or name, hub_base or name, licence or found, name)


def check_repo(name: str, flag: str) -> None:
    """Refuse a name that no repository of the Hub can have.

    Raises:
        InputError: says what is wrong with it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{flag} {name!r} is no name of a Hub repository: {error} Write OWNER/NAME.") from error


def _licence_in(readme: Path) -> str:
    """Read the licence out of a model's card; ``unknown`` where there is no card or it does not say."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        told = (metadata_load(readme) or {}).get("license")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return UNKNOWN
    return told if isinstance(told, str) and told.strip() else UNKNOWN


def fetch_extras(name: str) -> Path | None:
    """Bring what ``load_base`` does not need but a copy should have: generation settings, chat template, card.

    They come into the Hub's cache beside the base's other files, where loading it finds them.

    Returns:
        The folder they lie in; None where the base is no Hub id, or they cannot be had: then it is done without.
    """
    from huggingface_hub import snapshot_download

    if name in ALIASES or is_path(name) or Path(name).expanduser().is_dir():
        return None
    try:
        return Path(snapshot_download(name, allow_patterns=["generation_config.json", "chat_template*", "README.md"]))
    except hub_errors():
        return None
