"""The convergence check: right limits pass, wrong ones do not, and the derivation holds for more than two programs."""

import json
from pathlib import Path

import numpy as np
import pytest

import tpc
from tests.support.checked import falls
from tpc.errors import UsageError
from tpc.tasks import pi_check
from tpc.tasks.check import run_check
from tpc.tasks.convergence import CheckResult, Even
from tpc.tasks.intervals import Deviation, fit_slope

PROGRAMS = Path(__file__).parents[2] / "programs"
QUICK = {"widths": (128, 256, 512, 1024, 2048), "seeds": 12, "steps": 3}


def two_layers(phi):
    def network(x):
        h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
        h = tpc.dense(phi(h), name="hidden") + tpc.bias("hidden")
        return tpc.readout(phi(h), 5) + tpc.bias("readout")

    return tpc.trace(network)


def one_matrix_used_twice(x):
    h = tpc.dense(x, name="embed", space="stream")
    for _ in range(2):
        h = h + 0.5 * tpc.dense(tpc.relu(h), name="block", space="stream")
    return tpc.readout(tpc.relu(h), 5)


def two_matrices_in_a_row(x):
    h = tpc.dense(tpc.dense(tpc.relu(tpc.dense(x, name="embed")), name="a"), name="b")
    return tpc.readout(tpc.relu(h), 5)


def gated_readout(x):
    h = tpc.relu(tpc.dense(x, name="embed"))
    return tpc.readout(tpc.relu(tpc.dense(h, name="a", space="q")) * tpc.dense(h, name="b", space="q"), 5)


def moments_of_nonlinearities(x):
    h = tpc.dense(x, name="embed")
    y, z = tpc.relu(h), tpc.erf(h)
    h = tpc.dense(tpc.moment(y, z) * y + z, name="a")
    return tpc.readout(tpc.relu(h) * (1 + tpc.moment(tpc.relu(h))) ** -1, 5)


def adapted(phi, **adaptation):
    """Two hidden layers and a readout bias, adapted."""

    def network(x):
        h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
        h = tpc.dense(phi(h), name="hidden") + tpc.bias("hidden")
        return tpc.adapt(tpc.readout(phi(h), 5) + tpc.bias("readout"), **adaptation)

    return tpc.trace(network)


@pytest.mark.parametrize("name", ["mlp", "resmlp", "maml"])
def test_the_programs_approach_their_limit(name):
    result = run_check(tpc.load(PROGRAMS / f"{name}.py"), **QUICK)
    assert result.ok, result.table()
    assert len(result.slopes) == 4
    assert result.moved[0] == 0
    assert min(result.moved[1:]) > 0.15, "too little was learned to check learning"


@pytest.mark.parametrize(
    "program",
    [
        two_layers(tpc.erf),
        two_layers(tpc.abs),
        two_layers(lambda h: tpc.leaky_relu(h, 0.2)),
        two_layers(tpc.gelu),
        *map(tpc.trace, (one_matrix_used_twice, two_matrices_in_a_row, gated_readout, moments_of_nonlinearities)),
    ],
    ids=lambda p: p.name,
)
def test_other_networks_approach_theirs(program):
    result = run_check(program, **{**QUICK, "steps": 2})
    assert result.verdict.answer != "wrong", result.table()
    assert falls(result.slopes)


ADAPTED = {
    "readout": (tpc.relu, {"layers": ["readout", "readout.bias"], "zero": "readout", "steps": 3}),
    "all, first order": (tpc.relu, {"layers": "all", "order": 1, "steps": 2}),
    "all, second order": (tpc.gelu, {"layers": "all", "steps": 2}),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_adapted_networks_approach_their_limit(name):
    phi, options = ADAPTED[name]
    quick = {"widths": (128, 512, 2048), "seeds": 8, "steps": 1 if "second" in name else 2}
    result = run_check(adapted(phi, step_size=0.1, **options), **quick)
    assert result.verdict.answer != "wrong", result.table()
    assert falls(result.slopes)
    assert min(result.moved[1:]) > 0.1


def test_a_wrong_step_on_the_support_is_found(monkeypatch):
    other = tpc.compile(adapted(tpc.relu, zero="readout", step_size=0.15))

    class Further(pi_check.FiniteNetwork):
        def __init__(self, limit, *arguments, **options):
            super().__init__(other, *arguments, **options)

    monkeypatch.setattr(pi_check, "FiniteNetwork", Further)
    right = adapted(tpc.relu, zero="readout", step_size=0.1)
    result = run_check(right, **{**QUICK, "steps": 0, "widths": (512, 1024, 2048)})
    assert result.errors[0][-1] > 0.3
    assert result.verdict.answer == "wrong"


def test_batches_too_small_for_a_support_are_told():
    with pytest.raises(UsageError, match="at least 4 samples in a batch of a network that adapts, got 3"):
        run_check(adapted(tpc.relu), batch=3)


@pytest.mark.parametrize(
    "options",
    [
        {"clip": 0.4, "clip_mode": "param", "momentum": 0.9, "weight_decay": 0.05, "lr_mult": {"embed": 0.3}},
        {"clip": 0.4, "clip_mode": "global", "weight_decay": 0.1, "decay_follows_lr_mult": True},
        {"loss": "mse"},
    ],
    ids=["momentum", "global-clip", "mse"],
)
def test_every_option_of_a_step_has_the_same_limit(options):
    result = run_check(tpc.load(PROGRAMS / "mlp.py"), **QUICK, **options)
    assert result.ok, result.table()


def test_a_wrong_update_is_found(monkeypatch):
    """Networks that learn a little faster approach the limit before training, but not after it."""

    class Faster(pi_check.FiniteNetwork):
        def step(self, x, y, *, lr, **options):
            return super().step(x, y, lr=1.5 * lr, **options)

    monkeypatch.setattr(pi_check, "FiniteNetwork", Faster)
    result = run_check(tpc.load(PROGRAMS / "mlp.py"), **{**QUICK, "steps": 1})
    before, after = result.slopes
    assert before.interval()[0] < -0.5 < before.interval()[1]
    assert after.slope > -0.3
    assert result.verdict.answer == "wrong"
    assert "the change by step 1 is off by" in result.table()


def test_own_data_decide_the_batches():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 6)), rng.integers(0, 5, 20)
    program = two_layers(tpc.erf)
    settings = {"widths": (64, 128, 256), "seeds": 1, "steps": 2, "batch": 8, "rank": 4}
    result = run_check(program, x=x, y=y, **settings)
    assert run_check(program, x=x, y=y, **settings) == result
    assert run_check(program, x=x, y=(y + 1) % 5, **settings).errors[0] == result.errors[0]
    assert run_check(program, x=x, y=(y + 1) % 5, **settings).errors[1] != result.errors[1]
    assert run_check(program, x=x, y=y, seed=1, **settings).errors != result.errors


def test_progress_says_what_is_done_and_ends_at_its_total():
    seen = []
    run_check(two_layers(tpc.erf), widths=(32, 64, 128), seeds=2, steps=0, progress=lambda *told: seen.append(told))
    done, totals, what = zip(*seen)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    assert list(dict.fromkeys(what)) == [
        *(f"networks of width {n}" for n in (32, 64, 128)),
        "evenly drawn networks of width 4096",
    ]


def test_before_training_a_network_with_jumps_is_checked_too():
    program = tpc.trace(lambda x: tpc.readout(tpc.step(tpc.dense(x, name="embed")), 5))
    assert run_check(program, **{**QUICK, "steps": 0}).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (128, 256, 256)}, "at least three widths to fit a slope to, got 128, 256"),
        ({"widths": (4, 128, 256)}, "widths of at least the rank 8, got 4"),
        ({"seeds": 0}, "expected seeds to be a whole number from 1 on, got 0"),
        ({"steps": 1.5}, "expected steps to be a whole number from 0 on, got 1.5"),
        ({"steps": 100}, "expected 1600 training samples and held-out ones, got "),
        ({"x": np.ones((10, 3))}, "expected both x and y"),
        ({"x": np.ones((40, 3)), "y": np.zeros(39, int)}, r"expected x \(N, d\) and N labels"),
        ({"lr": 1e60}, r"training of the limit diverged at learning rate 1e\+60; give a smaller one"),
        ({"limit": "nothing"}, "expected a limit among pi"),
    ],
)
def test_wrong_arguments_are_told(change, message):
    with pytest.raises(UsageError, match=message):
        run_check(tpc.load(PROGRAMS / "mlp.py"), **change)


def test_a_network_without_output_is_told():
    program = tpc.trace(lambda x: tpc.readout(tpc.relu(tpc.dense(x, name="embed")), 5, weight_std=0.0))
    with pytest.raises(UsageError, match="zero logits"):
        run_check(program, steps=0)


def test_the_result_as_table_and_numbers():
    widths = (128, 256, 512)
    errors = (tuple(2 * n**-0.5 for n in widths), tuple(5 * n**-0.2 for n in widths))
    slopes = tuple(fit_slope(f"step {t}", widths, np.array([e, e]).T) for t, e in enumerate(errors))
    means = (Deviation("the initial logits", 0.01, 0.01, (4.0, 28.0)), Deviation("b", 0.2, 0.01, (4.0, 28.0)))
    even = Even(8, 4096, "evenly drawn")
    result = CheckResult(
        "net", "pi", 8, 4, 0.5, widths, ("step 0", "step 1"), errors, slopes, means, (0.0, 0.75), even
    )  # fmt: skip
    plain = json.loads(json.dumps(result.to_dict()))
    assert not plain["ok"]
    assert plain["verdict"] == "wrong"
    assert plain["reasons"] == [f"b is off by 20.00% ± {100 * means[1].radius:.2f}%"]
    assert plain["rows"][1]["row"] == "step 1"
    assert plain["rows"][1]["slope"] == pytest.approx(-0.2)
    assert plain["rows"][1]["interval"] == pytest.approx([-0.2, -0.2])
    assert plain["rows"][1]["moved"] == 0.75
    assert plain["mean_of"] == {"networks": 8, "width": 4096, "kind": "evenly drawn"}
    assert plain["deviations"][0]["bound"] == pytest.approx(0.01 + means[0].radius)
    title, head, first, second, mean, verdict = result.table().splitlines()
    assert title == "net: relative error of width-n networks against the pi-limit (4 seeds, rank 8, learning rate 0.5)"
    assert head.split() == ["step", *["n", "=", "128", "n", "=", "256", "n", "=", "512"], "slope", "moved"]
    assert first.split() == ["0", "0.1768", "0.1250", "0.0884", "−0.50", "±", "0.00", "0.00"]
    assert second.split()[4:] == ["−0.20", "±", "0.00", "0.75"]
    assert mean.startswith("mean of 8 evenly drawn networks of width 4096")
    assert verdict.startswith("wrong: b is off by 20.00% ±")
