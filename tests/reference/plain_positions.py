"""NNGP and NTK of networks with positions, written out on all pairs of positions with matrices that pick places.

Shares no code with tpc.limits or tpc.gaussian: relu by the arc-cosine kernels (Cho & Saul 2009), erf by Williams (1997).
A window is a matrix S_o for each offset, with S_o[p, q] = 1 where position p reads q; a convolution maps K to
σ²/|offsets| Σ_o S_o K S_oᵀ (Garriga-Alonso et al. 2019; Novak et al. 2019), the tangent kernel Θ to the same of Θ plus
the new K (Arora et al. 2019).
"""

from __future__ import annotations

from functools import reduce

import numpy as np


def places(length, size, stride=1, padding="same", dilation=1):
    """S[o, p, q] of one axis."""
    reach = dilation * (size - 1) + 1
    out = (length - reach) // stride + 1 if padding == "valid" else -(-length // stride)
    before = 0 if padding == "valid" else max(0, (out - 1) * stride + reach - length) // 2
    if padding == "circular":
        before = (reach - 1) // 2
    s = np.zeros((size, out, length))
    for o in range(size):
        for p in range(out):
            q = stride * p + dilation * o - before
            if padding == "circular":
                q %= length
            if 0 <= q < length:
                s[o, p, q] = 1
    return s


def window(lengths, size, stride=1, padding="same", dilation=1):
    """S[o, p, q] of several axes, flattened."""
    parts = [places(n, size, stride, padding, dilation) for n in lengths]
    return reduce(lambda a, b: np.einsum("opq,usr->ouPpsqr"[:2] + "->" if False else "opq,usr->oupsqr", a, b).reshape(
        a.shape[0] * b.shape[0], a.shape[1] * b.shape[1], a.shape[2] * b.shape[2]
    ), parts)
