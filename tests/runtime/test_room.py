"""What does not fit into memory is refused at once, with numbers; arguments of the wrong kind are told."""

import time

import numpy as np
import pytest

import tpc
from tests.support.problems import CLASSES, DIM, batch
from tpc.errors import UsageError, UserError
from tpc.runtime.models import folding
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.memory import Training, require_memory
from tpc.runtime.networks.finite import FiniteNetwork

RAGGED = [[0.0] * DIM, [1.0]]


@pytest.fixture(scope="module")
def limit(programs_dir):
    return tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((DIM, 10**12), {}),
        ((10**12, 4), {}),
        ((DIM, 10**6), {"mode": "folded", "fold": FoldOptions(degree=3)}),
        ((DIM, 50_000), {"mode": "folded", "fold": FoldOptions(degree=2)}),
        ((DIM, 10**8), {"backend": "native", "storage": "bfloat16"}),
    ],
)
def test_a_model_that_does_not_fit(limit, sizes, options):
    limit.graph()
    started = time.process_time()
    with pytest.raises(UserError, match=r"needs about .*B of memory before its first step, .* had .* smaller rank"):
        limit.build(*sizes, **options)
    assert time.process_time() - started < 10


def test_a_network_that_does_not_fit(limit):
    for options in ({"width": 10**9}, {"width": 10**7, "parametrization": "pi", "rank": 4}):
        with pytest.raises(UserError, match=r"a network of width .* needs about .* smaller width"):
            tpc.finite(limit, input_dim=DIM, **options)


def test_a_training_that_does_not_fit_is_refused_at_once(limit, monkeypatch):
    calls = []
    found = folding.relative_remainder
    monkeypatch.setattr(folding, "relative_remainder", lambda *given: calls.append(given) or found(*given))
    with pytest.raises(UserError, match=r"this training needs about .* What would fit: .*--rank"):
        require_memory(limit, Training(input_dim=64, rank=10**6, samples=1500, batch=32, epochs=10))
    assert len(calls) <= 4  # the degree is found once, not for every rank that is tried


@pytest.mark.parametrize("given", [[1], "embed", 2.0, (("embed", 1.0),)])
def test_multipliers_that_are_no_mapping(limit, given):
    state = limit.build(DIM, 4).state()
    for model in (limit.build(DIM, 4), tpc.finite(limit, 8, DIM), FiniteNetwork(limit, state, 8)):
        with pytest.raises(UsageError, match=r"expected lr_mult to map names of weights to factors, such as \{'embed'"):
            model.step(*batch(), lr=0.1, lr_mult=given)


def test_rows_of_different_lengths(limit, programs_dir):
    model, net = limit.build(DIM, 4), tpc.finite(limit, 8, DIM)
    check = FiniteNetwork(limit, model.state(), 8)
    kernel = tpc.compile(limit.program, limit="ntk")
    for call in (
        lambda: model.predict(RAGGED),
        lambda: model.step(RAGGED, [0, 1], lr=0.1),
        lambda: net.predict(RAGGED),
        lambda: net.step(RAGGED, [0, 1], lr=0.1),
        lambda: check.predict(RAGGED),
        lambda: kernel.kernel(RAGGED),
        lambda: kernel.kernel_diagonal(RAGGED),
        lambda: kernel.kernel(np.ones((2, DIM)), RAGGED),
        lambda: model.load_state({**model.state(), "embed.A": RAGGED}),
        lambda: tpc.Support(RAGGED, [0, 1]).membership(2),
    ):
        with pytest.raises(UsageError, match=r"expected .* to be an array \("):
            call()
