"""Memory and time of the paper's experiments, as the headers of their configurations have them.

    python benchmarks/budget.py

Computed, never measured: nobody here has run them. The formulas and what they leave out: budget_model.py.
"""

import argparse
from pathlib import Path
from textwrap import wrap

from budget_model import ASSUMED, BASES, EXPERIMENTS, METHODS, ROOT, TABLES, Setting, Time
from launches import Narrow
from memory_table import BASES as CONFIGS


def training_header(setting: Setting, method: str) -> list[str]:
    """The lines of an experiment's header."""
    memory, parts = setting.memory(method), setting.training(method)
    config, step = setting.experiments[method], setting.step(method)
    steps = config["trainer"]["max_steps"]
    own = [source for source in setting.table["methods"] if source["method"] in ("none", method)]
    rows = sum((setting.row(source) for source in own), Time())
    return [
        *_wrapped(
            f"Memory, computed (docs/placement.md), in GB: base {_gb(memory.base)}, editor with Adam "
            f"{_gb(memory.editor)}, step {_gb(memory.step)}, together {_gb(memory.total)}; the GPU's own "
            "context comes on top."
        ),
        *_wrapped(
            f"Time, computed (benchmarks/budget.py) for {ASSUMED}: {steps:,} steps of {step.seconds:.2f} s "
            f"{_long(parts['steps'])}, {steps // config['validation']['every_n_steps']} validations "
            f"{_long(parts['validations'])}, the test at the end {_long(parts['test'])}, its rows of the table "
            f"{_long(rows)}, together {_long(sum(parts.values(), rows))}."
        ),
    ]


def table_header(setting: Setting) -> list[str]:
    """The lines of a table's header: the table, and the trainings it needs."""
    base, editors, ft_l = setting.table_memory()
    rows = sum((setting.row(source) for source in setting.table["methods"]), Time())
    trainings = {method: sum(setting.training(method).values(), Time()) for method in METHODS}
    most = max(setting.memory(method).total for method in METHODS)
    told = ", ".join(f"{setting.experiments[name]['model']['method']} {_long(t)}" for name, t in trainings.items())
    return [
        *_wrapped(
            f"Memory, computed, in GB: the trainings {_gb(most)} at most. The table: base {_gb(base)}, three editors "
            f"{_gb(editors)}, FT-L's matrices with gradient and Adam {_gb(ft_l)}, together "
            f"{_gb(base + editors + ft_l)}."
        ),
        *_wrapped(
            f"Time, computed (benchmarks/budget.py) for {ASSUMED}: {told}, the table {_long(rows)}, together "
            f"{_long(sum(trainings.values(), rows))}."
        ),
    ]


def headers() -> dict[Path, list[str]]:
    """The computed lines of every header, by configuration."""
    found = {}
    for name in BASES:
        setting = Setting(name)
        found |= {EXPERIMENTS / f"{method}-{name}.yaml": training_header(setting, method) for method in METHODS}
        found[TABLES / f"table3-{name}.yaml"] = table_header(setting)
    return found


def count() -> None:
    """Print the launches that budget_model.py has as constants."""
    for name in BASES:
        setting, narrow = Setting(name), Narrow(CONFIGS[BASES[name]])
        steps = [narrow.step(setting.batch_of(method)) for method in ("mend", "instructedit")]
        print(f"{name}: {narrow.block:.1f} a block, {steps[0]} a step, {steps[1]} with instructions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count launches again")
    if parser.parse_args().count:
        count()
        return
    for path, lines in headers().items():
        print(f"{path.relative_to(ROOT)}\n{chr(10).join(lines)}\n")


def _wrapped(text: str) -> list[str]:
    return wrap(text, 119, initial_indent="# ", subsequent_indent="# ")


def _gb(number: float) -> str:
    return f"{number / 1e9:.1f}"


def _long(time: Time) -> str:
    hours = time.seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


if __name__ == "__main__":
    main()
