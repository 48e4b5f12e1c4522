"""Figures: what is drawn is what was measured, and the SVG follows the page's colours."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tests.support.checked import result_of
from tpc.report import plots

RECORDS = [
    {"kind": "step", "step": 1, "loss": 2.0, "accuracy": 0.25},
    {"kind": "step", "step": 2, "loss": None, "accuracy": 0.5},
    {"kind": "step", "step": 3, "loss": 1.0, "accuracy": 0.75},
    {
        "kind": "epoch", "step": 3, "epoch": 1, "train_loss": 1.5, "train_accuracy": 0.5,
        "test_loss": 1.2, "test_accuracy": 0.6, "atoms": {"hidden1": 30, "readout": 20},
    },
    {"kind": "diverged", "step": 4},
]  # fmt: skip


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_training_curves_show_the_records():
    loss, accuracy, atoms = plots.training_curves(RECORDS).axes
    assert lines(loss) == {
        "batches, smoothed": [[1, 2], [3, 1]],
        "train, epoch mean": [[3, 1.5]],
        "test": [[3, 1.2]],
    }
    assert lines(accuracy)["test"] == [[3, 0.6]]
    assert lines(atoms) == {"hidden1": [[3, 30]], "readout": [[3, 20]]}


def test_training_curves_of_a_run_without_epochs():
    assert len(plots.training_curves([]).axes) == 2  # without epochs nothing is known of atoms


def test_smoothing_keeps_the_mean_and_bounds_the_points():
    x, y = np.arange(1, 10_001), np.random.default_rng(0).standard_normal(10_000)
    at, means = plots.smooth(x, y)
    assert len(at) == len(means) == 100
    assert at[-1] == 10_000
    widths = np.diff(at, prepend=0)
    assert np.average(means, weights=widths) == pytest.approx(y.mean())


def test_confusion_shows_the_counts():
    axes = plots.confusion(np.array([[5, 1], [0, 4]]), ["cat", "dog"]).axes[0]
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
        ((0, 0), "5"),
        ((1, 0), "1"),
        ((1, 1), "4"),
    }


def test_convergence_draws_each_step_with_its_slope():
    widths, errors = (128, 512, 2048), ((0.4, 0.2, 0.1), (0.8, 0.4, 0.2))
    result = result_of(widths, ("step 0", "step 1"), errors)
    (axes,) = plots.convergence(result).axes
    drawn = lines(axes)
    assert drawn["step 0: slope −0.50"] == [[128, 0.4], [512, 0.2], [2048, 0.1]]
    assert drawn["step 1: slope −0.50"] == [[128, 0.8], [512, 0.4], [2048, 0.2]]
    guide = np.array(drawn["slope −1/2"])
    assert np.log(guide[-1, 1] / guide[0, 1]) / np.log(16) == pytest.approx(-0.5)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_svg_is_well_formed_deterministic_and_takes_the_ink_of_the_page():
    first = plots.to_svg(plots.training_curves(RECORDS), "curves")
    assert first == plots.to_svg(plots.training_curves(RECORDS), "curves")
    ET.fromstring(first)
    assert "currentColor" in first
    assert plots.INK not in first


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_saving_by_the_ending(tmp_path, ending):
    path = tmp_path / f"c.{ending}"
    plots.save(plots.training_curves(RECORDS), path)
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(("phi", "psi"), [("relu", "relu"), ("tanh", "tanh"), ("step", "gelu")])
def test_kernel_curve_draws_the_kernel(phi, psi):
    from tpc.gaussian import kernel
    from tpc.program.expression import parse_nonlinearity

    v = kernel(parse_nonlinearity(phi), parse_nonlinearity(psi))
    curve, series = plots.kernel_curve(v, 1.0, 2.0, 6).axes[0].get_lines()
    rho, value = curve.get_data()
    middle = len(rho) // 3
    assert value[middle] == pytest.approx(v.at(1.0, 2.0, float(rho[middle]) * 2**0.5), rel=1e-9)
    assert series.get_ydata()[len(rho) // 2] == pytest.approx(v.at(1.0, 2.0, 0.0), abs=1e-9)
