"""Hit rate against error, as a picture or as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from aicache._errors import ConfigurationError, MissingExtraError
from aicache._evaluation._report import COLUMNS, Row
from aicache._evaluation._run import Result
from aicache._evaluation._settings import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "Words", "check_plot", "plot"]

Per = Literal["requests", "hits"]

FORMATS: Final = (".html", ".png", ".svg")

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }}
svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }}
th, td {{ padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
</style></head><body>
<h1>{title}</h1>
<p>{said}</p>
{svg}
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
<p>{legend}</p>
</body></html>
"""


def check_plot(path: Path) -> None:
    """Find out before an hour of replays that nothing can be drawn.

    Raises:
        ConfigurationError: the name does not end as a picture or a page does, or there is no such folder.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise ConfigurationError("plot", f"give a file whose name ends with one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigurationError("plot", f"there is no folder {path.parent}")
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        raise MissingExtraError("drawing", "eval") from None


@dataclass(frozen=True, slots=True)
class Words:
    """What stands around a picture."""

    title: str
    said: str
    """Of what it is."""
    legend: str
    """Of the table."""


def plot(path: Path, rows: Sequence[Row], words: Words, per: Per) -> None:
    """Draw the rows into a file: a page with the table too, if its name ends with .html."""
    figure = _draw(rows, words.title, per)
    if path.suffix == ".html":
        path.write_text(_page(figure, rows, words), encoding="utf-8")
    else:
        figure.savefig(path, dpi=150)


def _draw(rows: Sequence[Row], title: str, per: Per) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for kind, label in KINDS.items():
        _curve(axes, [row for row in rows if row.setting.kind == kind], label, per)
    axes.set(title=title, xlabel=f"wrong answers, share of the {per}", ylabel="hit rate", ylim=(0, None))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _curve(axes: Axes, rows: Sequence[Row], label: str, per: Per) -> None:
    if not rows:
        return
    error = Result.wrong if per == "requests" else Result.wrong_per_hit
    ordered = sorted(rows, key=lambda row: row.setting.value)
    x, y = [row.mean(error) for row in ordered], [row.mean(Result.hit_rate) for row in ordered]
    axes.plot(x, y, marker="o", markersize=4, label=label)
    for row, at in zip(ordered, zip(x, y, strict=True), strict=True):
        axes.annotate(f"{row.setting.value:g}", at, xytext=(4, -9), textcoords="offset points", fontsize=7)


def _page(figure: Figure, rows: Sequence[Row], words: Words) -> str:
    titles = ["setting", *(column.title for column in COLUMNS)]
    lines = [[row.setting.name, *(column.of(row) for column in COLUMNS)] for row in rows]
    return _PAGE.format(
        title=escape(words.title),
        said=escape(words.said),
        svg=_svg(figure),
        head="".join(f"<th>{escape(name)}</th>" for name in titles),
        body="\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in lines),
        legend=escape(words.legend),
    )


def _svg(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().decode()
    return text[text.index("<svg") :]  # The declaration before it belongs to a file of its own.
