"""Data with positions: axes from annotations, listings, and mistakes told at their lines."""

from __future__ import annotations

import numpy as np
import pytest

import tpc
from tpc.errors import ProgramError, UsageError
from tpc.program.axes import SAMPLE
from tpc.program.node import Node

HEAD = "import tpc\n\ndef net(x: {kind}):\n    "


def axes(program):
    return [(a.name, a.size) for a in program.inputs[0].axes]


def network(x: tpc.Image):
    return tpc.readout(tpc.mean(tpc.conv(x, "c"), ("height", "width")), 2)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (tpc.Image, ["height", "width", "channel"]),
        (tpc.Sequence, ["time", "feature"]),
        (tpc.Data, ["feature"]),
        (tpc.Data["row", "column", "stripe"], ["row", "column", "stripe"]),
    ],
)
def test_annotations_name_axes(kind, names):
    def net(x):
        h = tpc.tanh(tpc.dense(x, "h"))
        return tpc.readout(tpc.mean(h, names[:-1]) if names[1:] else h, 2)

    net.__annotations__["x"] = kind
    assert axes(tpc.trace(net)) == [("sample", None), *((n, None) for n in names)]
    sizes = tuple(range(2, 2 + len(names)))
    assert axes(tpc.trace(net, input_shape=sizes))[1:] == list(zip(names, sizes))
    net.__annotations__["x"] = kind[sizes]
    assert axes(tpc.trace(net))[1:] == list(zip(names, sizes))
    with pytest.raises(UsageError, match="as net declares them"):
        tpc.trace(net, input_shape=tuple(n + 1 for n in sizes))


def test_without_annotation_data_has_features():
    program = tpc.trace(lambda x: tpc.readout(tpc.dense(x, "h"), 2))
    assert axes(program) == [("sample", None), ("feature", None)]
    assert program.inputs[0].axes[0] is not None
    assert program.inputs[0].axes[0] == SAMPLE


def test_a_network_knows_its_shape():
    def net(x: tpc.Image, *, input_shape=(4, 5, 1), scale=1.0):
        assert len(input_shape) == 3
        return scale * network(x)

    assert axes(tpc.trace(net))[1:] == [("height", 4), ("width", 5), ("channel", 1)]
    assert axes(tpc.trace(net, input_shape=(6, 6, 3), scale=2.0))[1:] == [("height", 6), ("width", 6), ("channel", 3)]


@pytest.mark.parametrize(
    "options", [{}, {"readout": "mean"}, {"padding": "valid", "layers": 2}, {"padding": "circular", "size": 2}]
)
def test_listings_are_read_back(programs_dir, options):
    program = tpc.load(programs_dir / "cnn.py", **options)
    nodes: list[Node] = program.nodes
    assert tpc.parse(program.listing).nodes == nodes
    assert ("height_4" in program.listing) == (options.get("padding") != "valid")


def test_equal_layers_share_and_meet():
    def net(x: tpc.Image[8, 8, 2]):
        h = tpc.conv(x, "c", 3, 2)
        other = tpc.conv(tpc.conv(x, "d", 2, padding="same"), "e", 1, 2)
        again = tpc.conv(x, "c", 3, 2)
        return tpc.readout(tpc.mean(h + other + again, ("height", "width")), 2)

    program = tpc.trace(net)
    assert sorted(w.name for w in program.weights) == ["c", "d", "e", "readout"]
    assert [a.name for a in program["logits"].axes] == ["sample", "class"]
    assert tpc.finite(program, 8).predict(np.zeros((2, 8, 8, 2))).shape == (2, 2)


MISTAKES = {
    "an unknown length": ("tpc.Image", ["h = tpc.conv(x, 'c')"], "tpc.conv needs to know the length of height", "28"),
    "a large kernel": (
        "tpc.Image[4, 9, 1]",
        ["h = tpc.conv(x, 'c', 5, padding='valid')"],
        "tpc.conv: a window of 5 places does not fit into the 4 of height with padding='valid'",
        "padding='same'",
    ),
    "a large pool": ("tpc.Sequence[4, 1]", ["h = tpc.avg_pool(x, 5)"], "does not fit into the 4 of time", "smaller"),
    "a padding": (
        "tpc.Image[4, 4, 1]",
        ["tpc.conv(x, 'c', padding='full')"],
        "padding among same, valid, circular",
        "",
    ),
    "a size": ("tpc.Image[4, 4, 1]", ["tpc.conv(x, 'c', (3, 3, 3))"], "or 2 of them as size of tpc.conv", ""),
    "a fraction": ("tpc.Sequence[4, 1]", ["tpc.conv(x, 'c', 2.5)"], "expected a positive whole number as size", ""),
    "a stride of 0": ("tpc.Sequence[4, 1]", ["tpc.conv(x, 'c', 2, 0)"], "whole number as stride of tpc.conv", ""),
    "an axis": ("tpc.Sequence[4, 1]", ["tpc.conv(x, 'c', axes='width')"], "expected one of the axes sample, time", ""),
    "the channels": ("tpc.Image[4, 4, 1]", ["tpc.conv(x, 'c', axes='channel')"], "along positions, not along", ""),
    "the samples": ("tpc.Image[4, 4, 1]", ["tpc.conv(x, 'c', axes='sample')"], "along positions, not along", ""),
    "no positions": ("tpc.Data", ["tpc.conv(x, 'c')"], "tpc.conv expects positions", "tpc.Image"),
    "averaged before": (
        "tpc.Sequence[4, 1]",
        ["h = tpc.mean(tpc.dense(x, 'd'), 'time')", "tpc.conv(h, 'c')"],
        "tpc.conv expects positions",
        "before positions are averaged",
    ),
    "an axis twice": ("tpc.Image[4, 4, 1]", ["tpc.mean(x, ('height', 'height'))"], "expects different axes", ""),
    "a number as axis": ("tpc.Image[4, 4, 1]", ["tpc.mean(x, 1)"], "tpc.mean expects names of axes, got 1", "height"),
    "a number to average": ("tpc.Image[4, 4, 1]", ["tpc.mean(3.0, 'height')"], "expects a traced value", ""),
    "a bias elsewhere": (
        "tpc.Image[4, 4, 1]",
        ["h = tpc.conv(x, 'c')", "h = h + tpc.bias('c', axes='time')"],
        "axes of positions of the data, height, width, got 'time'",
        "",
    ),
    "branches of two lengths": (
        "tpc.Sequence[8, 1]",
        ["h = tpc.conv(x, 'c')", "g = tpc.conv(h, 'd', padding='valid')", "h = h + g"],
        "got 8 along time and 6 along time_6",
        "padding='same'",
    ),
    "another window": (
        "tpc.Sequence[8, 1]",
        ["h = tpc.conv(x, 'c')", "g = tpc.conv(h, 'd', 3)", "tpc.conv(g, 'd', 5)"],
        "layer 'd' is used again as something else",
        "name of its own",
    ),
    "a position left": (
        "tpc.Image[4, 4, 1]",
        ["h = tpc.conv(x, 'c', 3, 2)", "return tpc.readout(h, 2, over='height')"],
        "must return logits with axes (sample, class), got one for every place of 'width'",
        "over=['width']",
    ),
    "a readout convolved": (
        "tpc.Image[4, 4, 1]",
        ["f = tpc.readout(tpc.conv(x, 'c'), 2)", "tpc.conv(f, 'd')"],
        "tpc.conv expects a vector (one value per neuron), got the output of a readout",
        "put the readout last",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_at_their_lines(tmp_path, name):
    kind, lines, message, fix = MISTAKES[name]
    file = tmp_path / "net.py"
    file.write_text(HEAD.format(kind=kind) + "\n    ".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ProgramError) as told:
        tpc.load(file)
    assert message in str(told.value)
    assert fix in str(told.value).partition("Fix: ")[2]
    assert told.value.where is not None
    assert told.value.where.line == 3 + len(lines)


@pytest.mark.parametrize("given", [(3, 3), (3, 3, 0), (3, 3, "a"), (3, 3, True)])
def test_shapes_are_lengths(given):
    with pytest.raises(UsageError, match="expected the lengths of height, width, channel, 3 positive numbers"):
        tpc.Image[given]
    with pytest.raises(UsageError, match="expected the lengths of height, width, channel"):
        tpc.trace(network, input_shape=given)


@pytest.mark.parametrize("given", [("time", "time"), ("sample", "x"), ("a b",)])
def test_names_of_axes_are_names(given):
    with pytest.raises(UsageError, match="names of axes"):
        tpc.Data[given]
