"""One HTML file that shows a comparison: tables and charts, with all it needs inside, so that it opens anywhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files

from jinja2 import Environment

from instructedit import __version__
from instructedit.comparison.charts import as_json, panels
from instructedit.comparison.runs import ComparedRun
from instructedit.comparison.sections import Section
from instructedit.errors import InputError


def to_html(sections: Sequence[Section], runs: Sequence[ComparedRun]) -> str:
    """Make the page.

    Args:
        sections: its tables.
        runs: in the order of their colours.

    Raises:
        InputError: plotly, whose script draws the charts, is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise InputError(
            "The page's charts need the package plotly. Run `pip install 'instructedit[analysis]'`."
        ) from error
    drawn = panels(runs)
    data = {"runs": [run.name for run in runs], "charts": [chart for panel in drawn for chart in panel.charts]}
    starts, count = {}, 0
    for panel in drawn:
        starts[panel.title] = count
        count += len(panel.charts)
    # Every value is escaped where it stands; what is trusted is marked below, and holds nothing from a run.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.j2")).render(
        sections=sections,
        panels=drawn,
        starts=starts,
        runs=runs,
        colours={run.name: place for place, run in enumerate(runs)},
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, instructedit {__version__}",
        style=_part("page.css"),
        script=_part("page.js"),
        plotly=get_plotlyjs(),
        data=as_json(data),
    )


def _part(name: str) -> str:
    return files("instructedit.comparison").joinpath(name).read_text(encoding="utf-8")
