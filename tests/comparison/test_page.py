"""The page and the Markdown: hostile names stay text, and nothing is fetched."""

import json
import re
from pathlib import Path

import pytest

from instructedit.comparison.charts import panels
from instructedit.comparison.formats import to_csv, to_markdown
from instructedit.comparison.page import to_html
from instructedit.comparison.ranking import rank
from instructedit.comparison.runs import Cell, ComparedRun, Curve
from instructedit.comparison.sections import finals, ranking, settings

pytest.importorskip("plotly", reason="the extra `analysis` is not installed")

HOSTILE = "</script><script>alert(1)</script>|`x`*{{ 7 * 7 }}"


def made(name: str) -> ComparedRun:
    curves = {
        "val/score": Curve([10, 20], [1.0, 2.0]),
        "train/loss": Curve(range(200), [1.0 / (1 + step) for step in range(200)]),
        "train/zsre/unlikelihood": Curve([1], [0.0]),
    }
    cells = {("zsre", "MEND", "reliability"): Cell(0.5, 0.4, 0.6, 10), ("zsre", "MEND", "locality"): Cell(0.75)}
    return ComparedRun(name, f"runs/{name}", {"model.lr": name}, curves=curves, cells=cells)


@pytest.fixture(scope="module")
def page() -> str:
    runs = [made(HOSTILE), made("plain")]
    tables = [ranking(rank(runs, "val/score"), "val/score"), settings(runs), finals(runs, "")]
    return to_html([table for table in tables if table], runs)


def without_plotly(page: str) -> str:
    from plotly.offline import get_plotlyjs

    assert get_plotlyjs() in page
    return page.replace(get_plotlyjs(), "")


def test_a_hostile_name_stays_text(page: str) -> None:
    ours = without_plotly(page)
    assert "<script>alert" not in ours and "&lt;script&gt;alert(1)" in ours and "{{ 7 * 7 }}" in ours
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', ours, re.DOTALL)
    assert data is not None and json.loads(data[1])["runs"] == [HOSTILE, "plain"]


def test_nothing_is_fetched(page: str) -> None:
    ours = without_plotly(page)
    assert not re.findall(r"""(?:src|href)\s*=|@import|url\(|https?:""", ours)
    assert "default-src 'none'" in ours


def test_noisy_curves_are_smoothed_with_their_values_kept_and_empty_ones_left_out() -> None:
    charts = {chart["title"]: chart for panel in panels([made("a")]) for chart in panel.charts}
    assert set(charts) == {"val/score", "train/loss", "zsre"}
    loss = charts["train/loss"]["lines"][0]
    assert loss["raw"]["y"][0] == 1.0 and loss["y"][0] < 1.0 and len(loss["raw"]["x"]) == 200
    assert "raw" not in charts["val/score"]["lines"][0]
    assert charts["zsre"]["lines"][0]["points"] == [
        {"mean": 50.0, "low": 40.0, "high": 60.0, "n": 10},
        {"mean": 75.0, "low": None, "high": None, "n": None},
    ]


def test_markdown_and_csv_hold_a_hostile_name_as_text(tmp_path: Path) -> None:
    runs = [made(HOSTILE)]
    text = to_markdown([ranking(rank(runs, "val/score"), "val/score")])
    assert "<script" not in text and "\\|\\`x\\`\\*" in text
    assert '"</script>' not in to_csv(runs).split("\n")[0] and "test/MEND/zsre/reliability,50,40,60,10" in to_csv(runs)
