"""The figure of representations: points are principal components, and everything fits."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tpc.report import plots
from tpc.report.features import features, silhouette
from tpc.runtime.models.representation import principal_components

NAMES = ("Old Church Slavonic (Cyrillic) 12", "Greek 1", "Tibetan 3", "Manipuri 40", "Syriac (Serto) 7")


def kernels(count, classes=5):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(classes), 8)
    found = {}
    for k in range(count):
        z = rng.standard_normal((len(labels), 4)) + k * rng.standard_normal((classes, 4))[labels]
        found[f"π-limit, {k}"] = z @ z.T
    return found, labels


def test_points_are_the_components_by_class():
    given, labels = kernels(2)
    figure = features(given, labels, NAMES)
    for axes, (title, kernel) in zip(figure.axes, given.items(), strict=True):
        points, shares = principal_components(kernel)
        assert axes.get_title().splitlines()[0] == title
        assert axes.get_title().splitlines()[1].startswith(f"{shares.sum():.0%} of variance, silhouette ")
        for k, drawn in enumerate(axes.collections):
            np.testing.assert_allclose(drawn.get_offsets(), points[labels == k])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES)


@pytest.mark.parametrize("panels", [1, 2, 4])
def test_the_legend_fits_into_the_figure(panels):
    figure = features(*kernels(panels), NAMES)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= legend.x0 <= legend.x1 <= whole.x1
    assert all(axes.get_window_extent().y0 > legend.y1 for axes in figure.axes)
    assert all(axes.get_window_extent().height > 250 for axes in figure.axes)


def test_silhouettes_tell_classes_apart_or_mixed():
    rng, labels = np.random.default_rng(1), np.repeat(np.arange(3), 10)
    apart = 10 * np.eye(3)[labels][:, :2] + 0.1 * rng.standard_normal((30, 2))
    assert silhouette(apart, labels) > 0.9
    assert silhouette(rng.standard_normal((30, 2)), labels) < 0.2


def test_it_is_an_svg_that_follows_the_page(tmp_path):
    figure = features(*kernels(2), NAMES)
    text = plots.to_svg(figure, "features")
    ET.fromstring(text)
    assert "currentColor" in text
    assert "π-limit, 1" in text
    plots.save(figure, tmp_path / "features.svg")
    ET.parse(tmp_path / "features.svg")
