import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_table_in_the_documentation_is_what_the_script_prints() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "memory_table.py"], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(lines) > 10
    page = (ROOT / "docs" / "placement.md").read_text()
    assert "\n".join(lines) in page
