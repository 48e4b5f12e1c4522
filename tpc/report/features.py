"""What a limit tells apart: principal components of representations, side by side (after Figure 1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tpc.report.plots import STYLE, series
from tpc.runtime.models.representation import principal_components

Array = NDArray[Any]
PANEL = 3.4  # width in inches
SYMBOL, LETTER = 0.6, 0.065  # widths in the legend


def features(kernels: Mapping[str, Array], labels: Array, names: Sequence[str]) -> Figure:
    """One panel per Gram matrix (N, N) by title: samples along its two largest components, marked by class.

    Below a title stand the share of variance of the two components and the mean silhouette of the classes in them:
    1 where classes are far apart, 0 where they mix.
    """
    with style.context({**STYLE, "axes.grid": False}):
        columns = max(1, min(len(names), int(PANEL * len(kernels) / (SYMBOL + LETTER * max(map(len, names))))))
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(PANEL * len(kernels), 3.6 + 0.2 * rows), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(kernels)))
        for axes, (title, kernel) in zip(panels, kernels.items()):
            points, shares = principal_components(kernel)
            for k, name in enumerate(names):
                own = points[labels == k]
                colour, marker = series(k)
                axes.scatter(own[:, 0], own[:, 1], s=18, color=colour, marker=marker, label=name, linewidths=0)
            told = f"{shares.sum():.0%} of variance, silhouette {silhouette(points, labels):.2f}".replace("-", "−")
            axes.set_title(f"{title}\n{told}", fontsize=9)
            axes.set(xticks=[], yticks=[])
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def silhouette(points: Array, labels: Array) -> float:
    """Mean over samples of (b − a)/max(a, b): a the mean distance to the own class, b to the nearest other one."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, labels))
