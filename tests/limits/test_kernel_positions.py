"""Kernels of networks with positions against recursions on all pairs of positions, and what is computed of them."""

import numpy as np
import pytest

import tpc
from backends.kernel_code import StretchedKernelCode
from tests.reference import plain_positions as plain
from tpc.errors import UserError
from tpc.lower.kernels import lower_kernels
from tpc.lower.sweep import Swept
from tpc.program.axes import SAMPLE

W, B = 1.25, 0.5
PADDINGS = {
    "same": {},
    "valid": {"padding": "valid"},
    "circular": {"padding": "circular"},
    "stride": {"stride": 2},
    "dilated": {"dilation": 2},
}


class Network:
    """What `plain.Positions` does, written with tpc."""

    def __init__(self, h):
        self.h = h

    def __add__(self, other):
        return Network(self.h + other.h)

    def __rmul__(self, factor):
        return Network(factor * self.h)

    def pool(self, size):
        return Network(tpc.avg_pool(self.h, size))

    def flat(self, std):
        return tpc.readout(self.h, 3, weight_std=std, over=places(self.h))

    def mean(self, std):
        return tpc.readout(tpc.mean(self.h, places(self.h)), 3, weight_std=std)


def places(h):
    return tuple(a.name for a in h.axes if a != SAMPLE)


def conv(h, name, **how):
    """A convolution of a network or of a reference."""
    if not isinstance(h, Network):
        return h.conv(3, W, B, **how)
    return Network(tpc.conv(h.h, name, 3, weight_std=W, space="all", **how) + tpc.bias(name, B))


def act(h, phi="relu"):
    return Network(getattr(tpc, phi)(h.h)) if isinstance(h, Network) else h(getattr(plain, phi))


def stacked(h, phi="relu", **how):
    h = conv(h, "first", **how)
    return act(conv(act(h, phi), "second", **how), phi)


def residual(h):
    h = conv(h, "first")
    for name in ("second", "third"):
        h = h + 0.5 * conv(act(h), name)
    return act(h)


def pooled(h, where):
    h = conv(h, "first")
    if where == "before":
        h = h.pool(2)
    h = act(h)
    if where == "after":
        h = h.pool(2)
    h = act(conv(h, "second"))
    return h.pool(2) if where == "last" else h


NETWORKS = {
    **{f"relu, {name}": lambda h, how=how: stacked(h, **how) for name, how in PADDINGS.items()},
    **{f"erf, {name}": lambda h, how=how: stacked(h, "erf", **how) for name, how in PADDINGS.items()},
    "residual": residual,
    **{f"pooled {where}": lambda h, where=where: pooled(h, where) for where in ("before", "after", "last")},
}
LENGTHS = {"1-D": (7,), "2-D": (6, 5)}
ends = pytest.mark.parametrize("end", ["flat", "mean"])


def data(lengths):
    x, y = np.random.default_rng(3).standard_normal((2, *lengths, 2))
    return np.array([x, y, -x, 2 * y - x])


def compiled(network, lengths, end):
    data = tpc.Image[(*lengths, 2)] if len(lengths) == 2 else tpc.Sequence[(*lengths, 2)]

    def written(x: data):
        return getattr(network(Network(x)), end)(W)

    return tpc.compile(tpc.trace(written), limit="ntk")


@ends
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_equal_a_recursion(name, lengths, end):
    x = data(lengths)
    limit = compiled(NETWORKS[name], lengths, end)
    nngp, ntk = getattr(NETWORKS[name](plain.data(x)), end)(W)
    for found, rows, columns in (
        (limit.kernel(x), slice(None), slice(None)),
        (limit.kernel(x[:3], x[1:]), slice(3), slice(1, None)),
    ):
        np.testing.assert_allclose(found["nngp"], nngp[rows, columns], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["ntk"], ntk[rows, columns], rtol=1e-9, atol=1e-12)


@ends
@pytest.mark.parametrize("name", ["relu, same", "erf, stride", "residual", "pooled after"])
def test_backends_agree(name, end):
    x = data((5, 4))
    limit = compiled(NETWORKS[name], (5, 4), end)
    expected = limit.kernel(x)
    assert isinstance(limit.kernel_function("native")._code, StretchedKernelCode)
    found = limit.kernel(x, backend="native")
    for kernel, value in expected.items():
        np.testing.assert_allclose(found[kernel], value, rtol=1e-12)


def positions(lowered):
    """The most position axes of anything that depends on both samples."""
    return max(len([a for a in t.axes if a.base in ("height", "width")]) for t in lowered.pairs.steps)


def test_only_what_the_readout_needs():
    """A flattened readout never looks at two places, a mean over places at all pairs."""
    for network, end, expected in ((stacked, "flat", 2), (residual, "flat", 2), (stacked, "mean", 4)):
        lowered = lower_kernels(compiled(network, (5, 4), end).graph())
        assert positions(lowered) == expected
    flat = lower_kernels(compiled(stacked, (5, 4), "flat").graph())
    assert max(np.prod([a.size or 1 for a in t.axes if a.base != SAMPLE.name]) for t in flat.pairs.steps) <= 5 * 4


@ends
def test_no_array_has_offsets(end):
    """Sums over offsets are taken axis by axis, while places are looked at."""
    lowered = lower_kernels(compiled(stacked, (5, 4), end).graph())
    assert any(isinstance(t, Swept) for t in lowered.pairs.steps)
    assert not any("offset" in a.name for t in lowered.pairs.steps for a in t.axes)


def test_blocks_are_bounded(monkeypatch):
    """Results do not depend on how many rows and columns a block has."""
    x = np.random.default_rng(1).standard_normal((9, 5, 4, 2))
    function = compiled(stacked, (5, 4), "mean").kernel_function()
    whole = function(x)
    monkeypatch.setattr(type(function._code), "ROWS", 40)
    monkeypatch.setattr(type(function._code), "COLUMNS", 40)
    for name, value in function(x).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-12)


def test_data_of_another_shape_are_told():
    limit = compiled(stacked, (5, 4), "flat")
    with pytest.raises(UserError, match=r"height = 5, width = 4, channel = 2"):
        limit.kernel(np.ones((3, 4, 5, 2)))
    with pytest.raises(UserError, match="height = 5"):
        limit.kernel(np.ones((3, 8)))


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_features_that_are_summed_twice_are_bound_apart(kind):
    """Σ_f x_f relu(h) is s(x) relu(h), s = Σ_f x_f: its kernels are s(x) s(x') times those of the perceptron."""

    def weighted(x):
        return tpc.readout(tpc.total(x * tpc.relu(tpc.dense(x, "embed", 1.2)), "feature"), 2)

    def plain(x):
        return tpc.readout(tpc.relu(tpc.dense(x, "embed", 1.2)), 2)

    x = np.random.default_rng(2).standard_normal((4, 3))
    s = x.sum(axis=1)
    found, want = (tpc.compile(tpc.trace(f), limit=kind) for f in (weighted, plain))
    np.testing.assert_allclose(found.kernel(x)[kind], np.outer(s, s) * want.kernel(x)[kind], rtol=1e-12)
    np.testing.assert_allclose(found.kernel_diagonal(x)[kind], s**2 * want.kernel_diagonal(x)[kind], rtol=1e-12)
