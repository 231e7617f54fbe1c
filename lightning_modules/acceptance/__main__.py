"""``python -m lightning_modules.acceptance``: the driver; with ``ranks`` or ``compare``, what it starts."""

import sys
from collections.abc import Sequence

from lightning_modules.acceptance.results import write_results
from lightning_modules.acceptance.setting import Setting


def main(argv: Sequence[str]) -> int:
    """Run one part of the acceptance and return the exit status."""
    if not argv:
        from lightning_modules.acceptance.driver import main as drive

        return drive()
    setting = Setting.from_environment(sys.executable)
    if argv[0] == "ranks":
        from lightning_modules.acceptance.ranks import main as check

        check(setting)
    else:
        from lightning_modules.acceptance.compare import compare_interrupted, compare_strategies

        phase, *names = argv[1:]
        found = (
            compare_strategies(setting, names) if phase == "strategies" else [compare_interrupted(setting, names[0])]
        )
        write_results(setting.folder, f"compared-{phase}", found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
