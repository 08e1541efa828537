"""Lines as inline SVG that takes its colours from the page, so that it is readable in light and in dark.

Drawn by matplotlib in colours that stand for CSS variables and are replaced by them. The SVG holds no script and no link.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

COLORS = {"#0000a1": "var(--line-1)", "#0000a2": "var(--line-2)", "#0000a3": "var(--rule)", "#0000a4": "var(--muted)"}
LINES, RULE, MUTED = ("#0000a1", "#0000a2"), "#0000a3", "#0000a4"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # the same data give the same bytes
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line; its name is told in the legend where there are several."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def short(value: float) -> str:
    """A tick's number: 0.0005, 12.5, 30k, 400M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def plot(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str = "",
    logarithmic: Literal["", "x", "xy"] = "",
    from_zero: bool = False,
    level: Mapping[str, float] | None = None,
    inches: tuple[float, float] = (5.4, 2.5),
) -> Markup:
    """The lines as an <svg>; `level` are horizontal lines by name; `logarithmic` names the axes that are."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.add_subplot()
        for line, color in zip(lines, LINES, strict=False):
            axes.plot(line.x, line.y, color=color, linewidth=1.6, label=line.name, solid_joinstyle="round")
        for name, value in (level or {}).items():
            axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=name)
        axes.grid(visible=True)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            if name in logarithmic:
                axes.set(**{f"{name}scale": "log"})
                axis.set_minor_formatter(NullFormatter())
            else:
                axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(FuncFormatter(lambda value, place: short(value)))
        if from_zero:
            axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        if len(lines) + len(level or {}) > 1:
            axes.legend(frameon=False, labelcolor=MUTED, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
        sink = io.StringIO()
        figure.savefig(
            sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _themed(sink.getvalue())


def _themed(svg: str) -> Markup:
    """The <svg> element alone, without size, document type and fonts, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r'\1class="plot" role="img"', svg, count=1)
    svg = re.sub(r"font-family:[^;\"]*;?", "", svg)
    for color, variable in COLORS.items():
        svg = svg.replace(color, variable)
    return Markup(svg)
