"""Training curves, confusion matrix and the convergence check as figures."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from tpc.gaussian import Kernel
from tpc.gaussian.names import KernelNames
from tpc.limits.kinds import limit_kind
from tpc.runtime.files.whole import writing
from tpc.tasks.convergence import CheckResult

Record = Mapping[str, Any]
# Mid tones that keep their contrast on white and on dark pages; each series has its own dash or marker, too.
BLUE, ORANGE, GREEN, PURPLE = "#2f78c4", "#d9822b", "#3a9a5b", "#9a5fd0"
RED, GREY, TEAL, PINK = "#c44f4f", "#6f7d8c", "#1c9c9c", "#c75a9b"
OLIVE, INDIGO, BROWN, BLACK = "#8a7a1e", "#5560c0", "#7a5230", "#808080"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY, TEAL, PINK, OLIVE, INDIGO, BROWN, BLACK)
MARKERS = "osD^vPX*<>pd"
LETTERS = 52  # of a legend of one panel in a row
UNDER = 0.5  # inches from the axes to the legend below: numbers and what they are
TITLE = 60  # characters in a line of a title
INK, GRID = "#010203", "#040506"  # stand-ins that `to_svg` replaces, so that text follows the page's colours
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def series(k: int) -> tuple[str, str]:
    """Colour and marker of the k-th series; of the first 144 no two are the same."""
    return SERIES[k % len(SERIES)], MARKERS[(k + k // len(SERIES)) % len(MARKERS)]


def to_svg(figure: Figure, name: str) -> str:
    """The figure as SVG text, transparent and with its ink in `currentColor`; deterministic.

    Only what is referred to has an id, as several figures may stand on one page; there is no metadata.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().replace(INK, "currentColor").replace(GRID, "var(--line, #d5d8dc)")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([^\s\")]+)", text))
    return re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)


def save(figure: Figure, path: Path) -> None:
    """Write the figure to a file in a directory that exists; the ending chooses svg, png or pdf; on white."""
    for axes in figure.axes:
        axes.set_facecolor("white")
        axes.tick_params(which="both", grid_color="#d5d8dc")
    undated = {"Date": None} if path.suffix.lower() == ".svg" else None
    with writing(path):
        figure.savefig(path, facecolor="white", dpi=150, metadata=undated)


def training_curves(records: Sequence[Record]) -> Figure:
    """Loss and accuracy over steps (batches as a smoothed line, epochs as markers), and atoms where there are any."""
    steps = [r for r in records if r.get("kind") == "step" and r["loss"] is not None]
    epochs = [r for r in records if r.get("kind") == "epoch"]
    measured = measured_on(records)
    with style.context(STYLE):
        gradients = [r for r in steps if r.get("grad_norm")]
        folded = [r for r in epochs if r.get("fold_remainder")]
        stored = any(r["atoms"] for r in epochs)
        count = 2 + stored + bool(gradients) + bool(folded)
        columns = count if count <= 3 else 2 if count == 4 else 3
        rows = -(-count // columns)
        figure = Figure(figsize=(3.4 * max(columns, 3), 3.3 * rows), layout="constrained")
        panels = list(np.atleast_2d(figure.subplots(rows, columns)).flat)
        for axes in panels[count:]:
            axes.remove()
        loss, accuracy, *more = panels
        for axes, key in ((loss, "loss"), (accuracy, "accuracy")):
            x = np.array([r["step"] for r in steps])
            y = np.array([r[key] for r in steps], dtype=float)
            axes.plot(*smooth(x, y), color=BLUE, linewidth=1.0, alpha=0.55, label="batches, smoothed")
            at = [r["step"] for r in epochs]
            axes.plot(
                at,
                [r[f"train_{key}"] for r in epochs],
                "o--",
                color=BLUE,
                markersize=4,
                label="train, epoch mean",
            )
            axes.plot(at, [r[f"{measured}_{key}"] for r in epochs], "s-", color=ORANGE, markersize=4, label=measured)
            axes.set(title=key, xlabel="step")
        figure.legend(*loss.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        if stored:
            _plot_atoms(more.pop(0), epochs)
        if gradients:
            _plot_norms(more.pop(0), gradients)
        if folded:
            _plot_remainders(more.pop(0), folded)
    return figure


def measured_on(records: Sequence[Record]) -> str:
    """What the epochs of a run were measured on: "test" or "validation"."""
    return "validation" if any("validation_loss" in r for r in records) else "test"


def _plot_norms(axes: Axes, steps: Sequence[Record]) -> None:
    """Gradient norms before clipping, one line per weight."""
    x = np.array([r["step"] for r in steps])
    for i, name in enumerate(steps[-1]["grad_norm"]):
        y = np.array([r["grad_norm"].get(name, np.nan) for r in steps], dtype=float)
        colour, marker = series(i)
        at, smoothed = smooth(x, y)
        every = max(1, len(at) // 6)
        axes.plot(at, smoothed, color=colour, marker=marker, markevery=every, markersize=4, linewidth=1.0, label=name)
    axes.set(title="gradient norms, smoothed", xlabel="step")
    axes.set_ylim(bottom=0)
    below(axes, fontsize=7)


def _plot_remainders(axes: Axes, epochs: Sequence[Record]) -> None:
    """The folding error of every store, relative to its kernel."""
    for i, name in enumerate(epochs[-1]["fold_remainder"]):
        values = [r["fold_remainder"].get(name, np.nan) for r in epochs]
        colour, marker = series(i)
        axes.plot([r["step"] for r in epochs], values, marker=marker, markersize=5, color=colour, label=name)
    axes.set(title="folding error", xlabel="step")
    axes.set_ylim(bottom=0)
    below(axes, fontsize=8)


def _plot_atoms(axes: Axes, epochs: Sequence[Record]) -> None:
    names = list(epochs[-1]["atoms"])
    for i, name in enumerate(names):  # equal counts stay visible: smaller markers on larger ones
        axes.plot(
            [r["step"] for r in epochs],
            [r["atoms"][name] for r in epochs],
            marker=series(i)[1],
            markersize=3 + 6 * (len(names) - i) / len(names),
            color=series(i)[0],
            label=name,
        )
    axes.set(title="atoms", xlabel="step")
    axes.set_ylim(bottom=0)
    below(axes, fontsize=8)


def below(axes: Axes, fontsize: int) -> None:
    """A legend below the axes, where it covers no curve."""
    labels = axes.get_legend_handles_labels()[1]
    columns = max(1, min(len(labels), int(LETTERS / (6 + max(map(len, labels), default=1)))))
    figure = axes.get_figure(root=True)
    assert figure is not None
    under = axes.transAxes + ScaledTranslation(0, -UNDER, figure.dpi_scale_trans)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under}
    axes.legend(**place, ncols=columns, fontsize=fontsize, borderaxespad=0)


def smooth(x: NDArray[Any], y: NDArray[Any], points: int = 100) -> tuple[NDArray[Any], NDArray[Any]]:
    """Means over at most `points` runs of neighbouring values; x is the last of each run."""
    if len(x) == 0:
        return x, y
    edges = np.unique(np.linspace(0, len(x), min(points, len(x)) + 1).astype(int))
    means = np.add.reduceat(y, edges[:-1]) / np.diff(edges)
    return x[edges[1:] - 1], means


def confusion(counts: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Counts[true, predicted] as a shaded matrix with the numbers in it."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with style.context({**STYLE, "axes.grid": False}):
        side = 1.6 + 0.42 * len(names)
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        axes = figure.subplots()
        shade = np.empty((*share.shape, 4))
        shade[..., :3] = to_rgb(BLUE)
        shade[..., 3] = np.sqrt(share)  # of transparency, so that an empty cell has the page's colour
        axes.imshow(shade)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                ink = "#ffffff" if share[i, j] > 0.6 else INK
                axes.text(j, i, str(count), ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 2 else 0, ha="center")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def kernel_curve(kernel: Kernel, p: float, q: float, terms: int, name: str = "") -> Figure:
    """V[φ,ψ](p, q, ρ√(pq)) over the correlation ρ, with its Mehler series to ρ^terms; `name` is that of the kernel."""
    name = name or KernelNames([(kernel.phi, kernel.psi)]).kernel(kernel.phi, kernel.psi)
    rho = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 401))  # denser where kinked kernels bend
    variances = np.full_like(rho, p), np.full_like(rho, q)
    with np.errstate(divide="ignore"):  # a kernel of deltas is infinite at the ends
        value = np.asarray(kernel.at(*variances, rho * np.sqrt(p * q)))
    with style.context(STYLE):
        figure = Figure(figsize=(6.2, 4.4), layout="constrained")
        axes = figure.subplots()
        shown = np.isfinite(value)
        axes.plot(rho[shown], value[shown], color=BLUE, linewidth=2, label="V")
        series = [kernel.series(terms)(p, q, r * np.sqrt(p * q)) for r in rho]
        axes.plot(rho, series, "--", color=ORANGE, linewidth=1.2, label=f"Mehler series to ρ^{terms}")
        axes.set(
            xlabel="correlation ρ",
            ylabel="V(p, q, ρ√(pq))",
            title=f"{textwrap.fill(name, TITLE)}\np = {p:g}, q = {q:g}",
        )
        low, high = np.min(value[shown]), np.max(value[shown])
        axes.set_ylim(low - 0.08 * (high - low) - 1e-12, high + 0.08 * (high - low) + 1e-12)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def convergence(*results: CheckResult) -> Figure:
    """Error against width on log axes, a panel per limit, a line per comparison with its slope; slope −1/2 dotted."""
    with style.context(STYLE):
        figure = Figure(figsize=(6.2 if len(results) == 1 else 4.6 * len(results), 4.4), layout="constrained")
        for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results):
            _plot_convergence(axes, result)
    return figure


def _plot_convergence(axes: Axes, result: CheckResult) -> None:
    for slope, values, colour, marker in zip(result.slopes, result.errors, SERIES * 9, MARKERS * 9):
        label = f"{slope.row}: {'exact' if slope.exact else f'slope {slope.slope:.2f}'}".replace("-", "−")
        axes.plot(result.widths, values, marker=marker, markersize=5, color=colour, label=label)
    top = max(max(values) for values in result.errors)
    guide = [1.25 * top * (width / result.widths[0]) ** -0.5 for width in result.widths]
    axes.plot(result.widths, guide, ":", color=INK, linewidth=1.2, label="slope −1/2")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    title = f"{result.program}: distance to the {limit_kind(result.limit).title}"
    axes.set(xlabel="width n", ylabel="relative error", title=title)
    axes.grid(visible=True, which="minor", axis="y", linewidth=0.3)
    below(axes, fontsize=9)
