"""NNGP and NTK of networks with positions, written out on all pairs of positions with matrices that pick places.

Shares no code with tpc.limits or tpc.gaussian: relu by arc-cosine kernels (Cho & Saul 2009), erf by Williams (1997).
A window is a matrix S_o for each offset, with S_o[p, q] = 1 where position p reads q; a convolution maps K to
σ²/|offsets| Σ_o S_o K S_oᵀ (Garriga-Alonso et al. 2019; Novak et al. 2019), the tangent kernel Θ to the same of Θ plus
the new K (Arora et al. 2019).
"""

from __future__ import annotations

import numpy as np


def places(length, size, stride=1, padding="same", dilation=1):
    """S[o, p, q] of one axis."""
    reach = dilation * (size - 1) + 1
    out = (length - reach) // stride + 1 if padding == "valid" else -(-length // stride)
    before = 0 if padding == "valid" else max(0, (out - 1) * stride + reach - length) // 2
    s = np.zeros((size, out, length))
    for o in range(size):
        for p in range(out):
            q = stride * p + dilation * o - before
            if padding == "circular" or 0 <= q < length:
                s[o, p, q % length] = 1
    return s


def window(lengths, size, stride=1, padding="same", dilation=1):
    """S[o, p, q] of several axes, as one of each."""
    s = np.ones((1, 1, 1))
    for n in lengths:
        t = places(n, size, stride, padding, dilation)
        s = np.einsum("opq,urs->ouprqs", s, t).reshape(*(a * b for a, b in zip(s.shape, t.shape)))
    return s


def relu(k, p, q):
    size = np.sqrt(p * q)
    angle = np.arccos(np.clip(k / size, -1, 1))
    return size * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi), (np.pi - angle) / (2 * np.pi)


def erf(k, p, q):
    a = (1 + 2 * p) * (1 + 2 * q)
    return 2 / np.pi * np.arcsin(2 * k / np.sqrt(a)), 4 / np.pi / np.sqrt(a - 4 * k**2)


class Positions:
    """Covariance and tangent kernel of a layer, k[s, p, s', p'], of positions with these lengths."""

    def __init__(self, k, theta, lengths):
        self.k, self.theta, self.lengths = k, theta, tuple(lengths)

    def __add__(self, other):
        """A sum of independent layers."""
        return Positions(self.k + other.k, self.theta + other.theta, self.lengths)

    def __rmul__(self, factor):
        return Positions(factor**2 * self.k, factor**2 * self.theta, self.lengths)

    def __call__(self, phi):
        variance = np.einsum("spsp->sp", self.k)
        value, slope = phi(self.k, variance[:, :, None, None], variance)
        return Positions(value, slope * self.theta, self.lengths)

    def moved(self, s, lengths):
        """What places see, summed over the offsets."""
        return Positions(
            *(np.einsum("opq,sqtr,our->sptu", s, k, s, optimize=True) for k in (self.k, self.theta)), lengths
        )

    def dense(self, std=1.0, bias=0.0):
        k = std**2 * self.k + bias**2
        return Positions(k, k + std**2 * self.theta, self.lengths)

    def conv(self, size, std=1.0, bias=0.0, **how):
        s = window(self.lengths, size, **how)
        lengths = [places(n, size, **how).shape[1] for n in self.lengths]
        return (self.moved(s / np.sqrt(len(s)), lengths)).dense(std, bias)

    def pool(self, size):
        """The mean of disjoint windows."""
        s = window(self.lengths, size, stride=size, padding="valid")
        return self.moved(s.mean(0, keepdims=True), [n // size for n in self.lengths])

    def flat(self, std=1.0):
        """A readout with a weight for every position."""
        k, theta = (std**2 * np.einsum("sptp->st", x) / x.shape[1] for x in (self.k, self.theta))
        return k, k + theta

    def mean(self, std=1.0):
        """A readout of the mean over positions."""
        k, theta = (std**2 * x.mean((1, 3)) for x in (self.k, self.theta))
        return k, k + theta


def data(x):
    """Samples [s, *positions, channel]; no weight has acted yet."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    k = np.einsum("spc,tqc->sptq", flat, flat) / x.shape[-1]
    return Positions(k, 0 * k, x.shape[1:-1])
