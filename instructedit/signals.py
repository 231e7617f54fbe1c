"""A flag that a signal raises: stop at the next step's end, not in the middle of one.

SIGTERM and SIGUSR1 are how a scheduler announces that time is up, SIGINT is Ctrl-C. The handler only
sets the flag: saving inside a handler can deadlock ranks. Install it before anything heavy is
imported; a signal during imports would otherwise end the process. Knows nothing about training.
"""

import atexit
import signal
import threading
from types import FrameType

_received: list[str] = []


def install() -> None:
    """Let SIGTERM, SIGINT and SIGUSR1 set the flag; a second SIGINT interrupts at once.

    SIGTERM and SIGUSR1 do nothing while the interpreter goes down. Outside the main thread, where Python allows no
    handlers, nothing happens.
    """
    if threading.current_thread() is threading.main_thread():
        atexit.unregister(_ignore)
        atexit.register(_ignore)
        for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
            if hasattr(signal, name):  # Windows has no SIGUSR1
                signal.signal(getattr(signal, name), _note)


def requested() -> str:
    """Return the name of the first signal that came, or an empty string."""
    return _received[0] if _received else ""


def clear() -> None:
    """Forget what came."""
    _received.clear()


def _ignore() -> None:
    """Let the process end with the status it has.

    Python takes its handlers back before it takes down its modules, which with torch lasts a second. A signal in that
    time would end the process with the signal's status in place of its own: srun sends one to the ranks that are left
    as soon as one has ended with a status other than 0. What is ignored stays ignored.
    """
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is _note:
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _note(number: int, _frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if name == "SIGINT" and "SIGINT" in _received:
        raise KeyboardInterrupt
    _received.append(name)
