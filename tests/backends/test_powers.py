"""Packed symmetric powers: inner products, slopes, sums, and halves against full tensors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import powers

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 4))


def latents(rank, rows=3, seed=0):
    return np.random.default_rng([seed, rank, rows]).standard_normal((rows, rank))


@given(SIZES)
@settings(max_examples=25, deadline=None)
def test_inner_products_are_powers(size):
    rank, order = size
    g, h = latents(rank), latents(rank, seed=1)
    found = powers.power(g, order) @ powers.power(h, order).T
    np.testing.assert_allclose(found, (g @ h.T) ** order, rtol=1e-12, atol=1e-12 * np.abs(found).max())
    assert powers.power(g, order).shape == (3, powers.count(rank, order))


@given(SIZES)
@settings(max_examples=25, deadline=None)
def test_slope_is_the_gradient(size):
    rank, order = size
    g, step = latents(rank), 1e-6
    dual = np.random.default_rng(2).standard_normal((3, powers.count(rank, order)))
    found = powers.slope(dual, g, order)
    for i in range(rank):
        e = np.zeros(rank)
        e[i] = step
        change = ((powers.power(g + e, order) - powers.power(g - e, order)) * dual).sum(axis=1) / (2 * step)
        np.testing.assert_allclose(found[:, i], change, rtol=1e-6, atol=1e-6 * np.abs(found).max())


INDICES = [(1, 1), (2, 1), (1, 3), (2, 2), (1, 1, 1), (3, 1, 1), (2, 0, 1), (4,), (1, 0)]


def mixed(index, rank):
    """One latent per place of a multi-index, and every latent as often as it says."""
    vectors = [latents(rank, seed=k) for k in range(len(index))]
    return vectors, [v for v, n in zip(vectors, index) for _ in range(n)]


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("rank", [1, 2, 6])
def test_inner_products_of_mixed_products(index, rank):
    _, factors = mixed(index, rank)
    h = latents(rank, seed=9)
    wanted = np.prod([(g * h).sum(axis=1) for g in factors], axis=0)
    found = (powers.product(factors) * powers.power(h, sum(index))).sum(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("rank", [1, 2, 6])
def test_opened_leaves_one_slot(index, rank):
    _, factors = mixed(index, rank)
    order = sum(index) + 1
    bases = [latents(rank, seed=k) for k in (20, 21, 22)]
    dual = sum(powers.power(h, order) for h in bases)
    wanted = sum(np.prod([(g * h).sum(axis=1) for g in factors], axis=0)[:, None] * h for h in bases)
    found = powers.opened(dual, powers.product(factors), order)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-11)
    shared = powers.opened(dual[:1], powers.product(factors), order)  # one dual for all samples
    np.testing.assert_allclose(shared[0], found[0], rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 6, 60])
def test_adding_mixed_products(rank):
    vectors, a = [latents(rank, 20, seed=k) for k in range(2)], latents(4, 20, seed=5)
    rng = np.random.default_rng(3)
    for parts in ([(0, 0)], [(1, 0), (0, 1)], [(2, 0), (1, 1)], [(2, 1), (0, 3), (1, 2)]):
        order = sum(parts[0])
        target = np.full((4, powers.count(rank, order)) if order else (4,), 0.5)
        numbers = [rng.standard_normal(20) for _ in parts]
        powers.add_products(target, a, vectors, list(zip(numbers, parts)))
        wanted = np.full_like(target, 0.5)
        for c, index in zip(numbers, parts):
            factors = [v for v, n in zip(vectors, index) for _ in range(n)]
            wanted += (a * c[:, None]).T @ powers.product(factors) if order else (a * c[:, None]).sum(axis=0)
        np.testing.assert_allclose(target, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("rank", [1, 7, 100])
def test_adding_powers(rank, order):
    if rank == 100 and order == 3:
        rank = 30
    a, b = latents(4, 20), latents(rank, 20, seed=3)
    width = (powers.count(rank, order),) if order else ()
    target = np.full((4, *width), 0.5)
    powers.add_powers(target, a, b, order)
    wanted = a.T @ powers.power(b, order) if order else a.sum(axis=0)
    np.testing.assert_allclose(target, 0.5 + wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 4, 8, 33])
def test_half_contracts_one_latent(rank):
    rng = np.random.default_rng(rank)
    full = rng.standard_normal((5, rank, rank))
    full += full.transpose(0, 2, 1)
    i, j = np.tril_indices(rank)
    packed = full[:, i, j] * np.where(i == j, 1, np.sqrt(2))
    g = latents(rank)
    wanted = np.einsum("kij,sj->ski", full, g)
    np.testing.assert_allclose(powers.half(packed, g), wanted, rtol=1e-12, atol=1e-12)
    value = np.einsum("kij,si,sj->sk", full, g, g)
    np.testing.assert_allclose(powers.power(g, 2) @ packed.T, value, rtol=1e-11, atol=1e-11)
