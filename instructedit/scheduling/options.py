"""Further options of sbatch and srun, as flags and profiles give them: plain ones, and none that the script sets."""

from collections.abc import Sequence

from instructedit.errors import InputError
from instructedit.scheduling.keys import check_text
from instructedit.scheduling.values import check_value, control_characters

OWN_OPTIONS = {
    *("array", "chdir", "cpus-per-task", "dependency", "error", "gpus", "gpus-per-node", "gres", "input", "job-name"),
    *("mem", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition"),
    *("account", "qos", "constraint", "requeue", "signal", "test-only", "time", "wait", "wrap"),
}
"""Options of sbatch that have a field or a flag of their own, or that the job script's own rules depend on."""


def check_options(options: Sequence[str], source: str) -> None:
    """Refuse options of sbatch that are no plain options, or that have a flag of their own.

    Raises:
        InputError: names the option.
    """
    for option in options:
        check_text(option, source)
        check_value("option", option, source)
        name = option.removeprefix("--").partition("=")[0]
        # sbatch takes the beginning of a name for the name.
        meant = min((own for own in OWN_OPTIONS if own.startswith(name)), key=len, default=None)
        if meant is not None:
            short = f" (short for --{meant})" if meant != name else ""
            raise InputError(
                f"{source} has --{name}{short}, which the job script sets itself. "
                f"`instructedit submit --help` lists the flags for it; leave it out here."
            )


def check_srun_options(options: Sequence[str], source: str) -> None:
    """Refuse texts that are no options of srun, and an environment without the script's own variables.

    Raises:
        InputError: names the option.
    """
    for option in options:
        check_text(option, source)
        if not option.startswith("-") or control_characters(option):
            raise InputError(
                f"{source} has {option!r}. Options begin with --, and have their value after =, on one line."
            )
        name, _, value = option.partition("=")
        if name == "--export" and value.split(",")[0] != "ALL":
            raise InputError(
                f"{source} has {option!r}: the program needs the variables that the script sets. Write --export=ALL,..."
            )
