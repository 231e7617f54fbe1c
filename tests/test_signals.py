"""The flag a signal raises."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from instructedit import signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    signals.install()
    yield
    signals.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_sets_the_flag_and_nothing_else(number: signal.Signals) -> None:
    assert signals.requested() == ""
    os.kill(os.getpid(), number)
    assert signals.requested() == number.name
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.requested() == number.name
    signals.clear()
    assert signals.requested() == ""


def test_a_second_interrupt_interrupts() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_fit_installs_the_handlers_before_torch_is_imported() -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            os.kill(os.getpid(), signal.SIGUSR1)\n"
        "            from instructedit import signals\n"
        "            print(signals.requested()); sys.stdout.flush(); os._exit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from instructedit import cli\n"
        "cli.main(['fit', '--config', 'none.yaml'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "SIGUSR1\n"), done.stderr
