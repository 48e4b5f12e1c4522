"""Folded tensors multiplied in bfloat16: every shape, the numbers that are exact, what is packed once, and training."""

from __future__ import annotations

import numpy as np
import pytest

import tpc
from backends import native_products, powers
from backends.half import from_stored, to_stored
from backends.native_products import BFLOAT16, FEW, RoundedArrays
from tpc.runtime.models.folding import FoldOptions

FLOAT = np.dtype(np.float32)
needs_instructions = pytest.mark.skipif(native_products.functions() is None, reason="the processor has no AVX512_BF16")


def rounded(x):
    return from_stored(to_stored(x.astype(np.float32), BFLOAT16), FLOAT).astype(np.float64)


def matrices(outer, rank, seed=0):
    return np.random.default_rng(seed).standard_normal((outer, powers.count(rank, 2))).astype(np.float32)


def latents(count, rank, seed=1):
    return np.random.default_rng(seed).standard_normal((count, rank)).astype(np.float32)


def diagonal(rank):
    """Where the squares are in packed matrices."""
    return np.arange(1, rank + 1) * np.arange(2, rank + 2) // 2 - 1


def scaled(matrix, rank):
    """The matrix that the products see: √2 times the squares is rounded, not they themselves."""
    made, squares = rounded(matrix), matrix[:, diagonal(rank)] * np.float32(2**0.5)
    made[:, diagonal(rank)] = rounded(squares) / 2**0.5
    return made


@needs_instructions
@pytest.mark.parametrize("rank", [*range(1, 36), 48, 63, 64, 65])
def test_half_is_that_of_rounded_factors(rank):
    for outer in (1, 3):
        matrix = matrices(outer, rank)
        for batch in (1, 7, 8, 9, FEW - 1, FEW, FEW + 1, 33):
            g = latents(batch, rank)
            wanted = powers.half(scaled(matrix, rank), rounded(g))
            found, whole = RoundedArrays().halves(matrix, g)
            assert found.dtype == whole.dtype == FLOAT
            np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
            np.testing.assert_allclose(whole, np.einsum("bkr,br->bk", found, g), atol=1e-5 * np.abs(wanted).max())


@needs_instructions
@pytest.mark.parametrize(("rank", "atoms", "outer"), [(1, 1, 1), (5, 3, 7), (16, 511, 9), (33, 513, 3), (70, 40, 20)])
def test_powers_are_added_from_rounded_factors(rank, atoms, outer):
    a, b = latents(atoms, outer), latents(atoms, rank, seed=2)
    start = matrices(outer, rank)
    target = start.copy()
    RoundedArrays().add_powers(target, a, b, 2)
    wanted = start + rounded(a).T @ rounded(powers.power(b, 2))
    np.testing.assert_allclose(target, wanted, atol=4e-6 * np.abs(wanted).max())


@needs_instructions
def test_mixed_products_are_added_within_rounding():
    rank, parts = 12, [(2, 0), (1, 1)]
    vectors, a = [latents(30, rank, seed=k) for k in range(2)], latents(30, 4, seed=5)
    numbers = [latents(1, 30, seed=9 + k)[0] for k in range(2)]
    wanted, found = np.zeros((4, powers.count(rank, 2))), np.zeros((4, powers.count(rank, 2)), np.float32)
    RoundedArrays().add_products(found, a, vectors, list(zip(numbers, parts)))
    powers.add_products(wanted, a.astype(float), vectors, list(zip(numbers, parts)))
    assert np.linalg.norm(found - wanted) < 5e-3 * np.linalg.norm(wanted)


def test_every_change_of_the_matrices_is_seen():
    arrays, matrix, g = RoundedArrays(), matrices(3, 9), latents(4, 9)
    before = arrays.halves(matrix, g)[0]
    arrays.multiply(matrix, np.float32(2))
    np.testing.assert_array_equal(arrays.halves(matrix, g)[0], 2 * before)
    arrays.add_powers(matrix, latents(5, 3), latents(5, 9), 2)
    np.testing.assert_array_equal(arrays.halves(matrix, g)[0], RoundedArrays().halves(matrix, g)[0])
    np.testing.assert_array_equal(arrays.halves(matrix, g[0])[0], arrays.halves(matrix, g[:1])[0][0])
    arrays.add_products(matrix, latents(5, 3), [latents(5, 9)] * 2, [(np.ones(5, np.float32), (1, 1))])
    np.testing.assert_array_equal(arrays.halves(matrix, g)[0], RoundedArrays().halves(matrix, g)[0])


def test_without_the_instructions_products_are_float32(monkeypatch):
    monkeypatch.setattr(native_products, "functions", lambda: None)
    arrays, matrix, g = RoundedArrays(), matrices(3, 9), latents(40, 9)
    wanted = powers.half(matrix.astype(float), g.astype(float))
    np.testing.assert_allclose(arrays.halves(matrix, g)[0], wanted, atol=2e-6 * np.abs(wanted).max())
    sums = matrix.astype(float)
    powers.add_powers(sums, latents(40, 3).astype(float), g.astype(float), 2)
    arrays.add_powers(matrix, latents(40, 3), g, 2)
    np.testing.assert_allclose(matrix, sums, atol=2e-6 * np.abs(sums).max())


@pytest.mark.parametrize("batch", [8, 40])
def test_training_differs_by_rounding_alone(programs_dir, batch):
    """50 steps, most atoms folded: logits as near to float32 as those of stored atoms of 16 bits have to be."""
    limit, rng = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=3)), np.random.default_rng(0)
    options = {"backend": "native", "mode": "folded", "fold": FoldOptions(degree=2, window=64)}
    one, other = (limit.build(12, 20, storage=s, **options) for s in ("float32", "bfloat16"))
    other.load_state(one.state())
    for _ in range(50):
        x, y = rng.standard_normal((batch, 12)), rng.integers(0, 3, batch)
        for model in (one, other):
            model.step(x, y, lr=0.3, clip=1.0, weight_decay=1e-3)
    x = rng.standard_normal((60, 12))
    wanted = one.predict(x)
    assert all(found is not None for found in one.remainders.values())  # both stores have folded
    assert np.abs(other.predict(x) - wanted).max() < 2e-2 * np.abs(wanted).max()
    assert np.abs(other.predict(x) - wanted).max() > 0
