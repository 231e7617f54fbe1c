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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_the_interpreter_goes_down_changes_no_status(number: signal.Signals) -> None:
    # A launcher tells the other ranks as soon as one has ended with a status of its own.
    code = (
        "import os, sys, time\n"
        "from instructedit import signals\n"
        "class Last:\n"
        "    def __del__(self, write=os.write, sleep=time.sleep):\n"
        "        write(1, b'going\\n'); sleep(0.5)\n"
        "last = Last()\n"
        "signals.install()\n"
        "sys.exit(3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"going\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == 3


def test_handlers_that_were_taken_back_are_left_alone() -> None:
    code = (
        "import atexit, signal\n"
        "atexit.register(lambda: print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL))\n"
        "from instructedit import signals\n"
        "signals.install()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
