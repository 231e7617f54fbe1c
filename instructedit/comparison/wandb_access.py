"""Whether Weights & Biases can be asked: its settings, a key, a way to the server; and what may be told of its errors.

Knows wandb's environment variables, nothing of runs.
"""

import os
import re
from http.client import HTTPException
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from instructedit.errors import InputError

REACH_SECONDS = 10.0


def require_access() -> None:
    """Make sure that there is a key and a way to the server, without asking anybody for the key.

    The way is tried here, because wandb's own service goes on trying for minutes, also after this program has ended.

    Raises:
        InputError: there is none, or the environment says something wandb cannot work with.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode not in ("", "online", "run"):
        raise InputError(f"WANDB_MODE is {mode!r}, with which wandb asks no server. Unset it, or set it to online.")
    key = os.environ.get("WANDB_API_KEY", "")
    if key and (not key.isascii() or not key.isprintable() or " " in key):
        raise InputError("WANDB_API_KEY holds a space, a line break or another sign no key has. Set it again without.")
    if os.environ.get("WANDB_BASE_URL"):
        _check_url(os.environ["WANDB_BASE_URL"])
    try:
        import wandb

        setup = wandb.setup(wandb.Settings(silent=True))
        known = wandb.login(prompt=False, verify=False)
        url = str(setup.settings.base_url)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about settings; its own text may hold the key
        raise InputError(
            f"Weights & Biases refuses its settings: {plain(error)}. Look at WANDB_API_KEY, the other WANDB_ "
            "variables, `wandb login` and wandb's own settings file."
        ) from None
    if not known:
        raise InputError("No key for Weights & Biases. Run `wandb login`, or set WANDB_API_KEY.")
    _check_url(url)
    try:
        urlopen(url, timeout=REACH_SECONDS).close()
    except HTTPError:
        pass  # whatever it says, it is there
    except URLError as error:
        if not isinstance(error.reason, SSLError):  # wandb may know certificates that are not known here
            raise _away(url, error.reason) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _away(url, error) from error


def _check_url(url: str) -> None:
    """Refuse an address of no server, or one with a password, which wandb would show and put into files."""
    advice = "Give WANDB_BASE_URL as https://HOST."
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if "@" in url:
        raise InputError(f"The address of the W&B server holds a name or a password, which wandb cannot use. {advice}")
    if not whole:
        raise InputError(f"The address of the W&B server is {url!r}, which is none. {advice}")


def _away(url: str, reason: object) -> InputError:
    return InputError(
        f"Weights & Biases cannot be reached at {url}: {reason}. Try again where there is a network; a server of your "
        "own goes into WANDB_BASE_URL."
    )


def plain(error: Exception) -> str:
    """An error's text in one line, without the key and without a password in an address."""
    listed = getattr(error, "errors", None)  # pydantic's text shows what was given
    found = [str(each.get("msg", "")) for each in listed()] if callable(listed) else [str(error)]
    text = " ".join(" ".join(found).split()).rstrip(".")
    key = os.environ.get("WANDB_API_KEY")
    return without_password(text.replace(key, "...") if key else text)


def without_password(text: str) -> str:
    """A text without names and passwords in addresses.

    >>> without_password("no answer from http://me:secret@host/x")
    'no answer from http://...@host/x'
    """
    return re.sub(r"//[^/@\s]*@", "//...@", text)
