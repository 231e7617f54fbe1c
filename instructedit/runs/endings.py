"""How a SLURM job ended, in words. Knows SLURM's states and exit codes, nothing of runs."""

import signal

from instructedit.scheduling.slurm import SlurmJob

def ended_why(known: SlurmJob) -> str:
    """How a job ended, in words: SLURM's state, and what its exit code says.

    >>> ended_why(SlurmJob("7", "FAILED", "RaisedSignal:9(Killed)", 0, "n1", "0:9"))
    'FAILED, killed by SIGKILL'
    """
    if known.state == "OUT_OF_MEMORY":  # its exit code is a number of SLURM's own, no signal
        return "OUT_OF_MEMORY, it used more memory than it had asked for with --mem"
    status, _, number = known.exit_code.partition(":")
    parts = [known.state]
    if number.isdecimal() and int(number):
        parts.append(f"killed by {_signal_name(int(number))}")
    elif status.isdecimal() and int(status) > 128:
        parts.append(f"a process was killed by {_signal_name(int(status) - 128)}")
    elif status.isdecimal() and int(status):
        parts.append(f"exit status {status}")
    if known.state in ("NODE_FAIL", "TIMEOUT", "CANCELLED") and known.reason:
        parts.append(known.reason)
    return ", ".join(parts)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
