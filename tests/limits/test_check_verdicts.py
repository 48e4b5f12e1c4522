"""Verdicts of `tpc check`: right networks raise no alarm at small widths, wrong limits do at default settings."""

import numpy as np
import pytest

import tpc
from tests.support.checked import PROGRAMS, RIGHT, WRONG, perceptron
from tests.support.sabotage import kernels_of_steps, limits_changed
from tpc.tasks import check, kernel_check, pi_check
from tpc.tasks.check import run_check
from tpc.tasks.intervals import Deviation, Slope, half_width
from tpc.tasks.verdict import Verdict, joint, judge

SMALL = {"widths": (128, 256, 512), "seeds": 4}
KERNELS = {"widths": (64, 128, 256, 512), "seeds": 4, "steps": 1, "fit_steps": 5}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_limit_raises_no_alarm_at_small_widths(name):
    result = run_check(RIGHT[name](), **SMALL)
    assert result.verdict.answer != "wrong", result.table()
    if result.verdict.answer == "cannot tell":
        assert result.verdict.options.startswith("--widths ")


@pytest.mark.parametrize("name", ["erf", "pre-norm", "tied readouts"])
def test_enough_networks_tell_that_it_is_right(name):
    result = run_check(RIGHT[name](), widths=(128, 256, 512, 1024, 2048), seeds=8, steps=2)
    assert result.ok, result.table()
    assert "errors fall like width^(−1/2), and means agree to" in str(result.verdict)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_limit_is_called_wrong_at_default_settings(name):
    wrong = WRONG[name]
    with limits_changed(wrong.change):
        result = run_check(RIGHT[wrong.program]())
    assert result.verdict.answer == "wrong", result.table()
    assert not result.ok


def test_decay_that_is_left_out_is_found(monkeypatch):
    class WithoutDecay(pi_check.FiniteNetwork):
        def step(self, *arguments, weight_decay, **options):
            return super().step(*arguments, **options)

    monkeypatch.setattr(pi_check, "FiniteNetwork", WithoutDecay)
    result = run_check(RIGHT["mlp"](), weight_decay=0.05)
    assert result.verdict.answer == "wrong", result.table()
    assert all(row.startswith("the change by step") for row in alarms(result))


def test_the_weight_whose_update_is_wrong_is_named():
    with limits_changed(WRONG["a bias that learns backwards"].change):
        result = run_check(RIGHT["resmlp"](), **{**SMALL, "steps": 1})
    assert alarms(result) == ["the change by block1.bias alone"]


def test_fluctuations_that_stay_are_found_though_their_mean_is_right(monkeypatch):
    class Restless(pi_check.FiniteNetwork):
        def __init__(self, limit, state, width, seed=0, draw=pi_check.balanced_gaussian):
            super().__init__(limit, state, width, seed, draw)
            self.shift = 0.2 * np.random.default_rng([seed, width]).standard_normal(5)

        def predict(self, x, support=None):
            found = super().predict(x, support)
            return found + self.shift * np.sqrt(np.square(found).mean())

    monkeypatch.setattr(pi_check, "FiniteNetwork", Restless)
    result = run_check(RIGHT["erf"](), steps=1)
    assert result.verdict.answer == "wrong", result.table()
    assert "stays" in str(result.verdict)


def test_the_same_seed_gives_the_same_verdict():
    first, again, other = (run_check(RIGHT["erf"](), **{**SMALL, "steps": 1, "seed": seed}) for seed in (0, 0, 1))
    assert first == again
    assert first.deviations != other.deviations


def alarms(result):
    return [d.row for d in result.deviations if d.chance * len(result.deviations) < 1e-3]


# --- kernel limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"), [("mlp", "ntk"), ("resmlp", "nngp"), ("erf", "ntk"), ("GLU", "nngp"), ("tied readouts", "ntk")]
)
def test_a_right_kernel_raises_no_alarm(name, limit):
    result = run_check(RIGHT[name](), limit=limit, **KERNELS)
    assert result.verdict.answer != "wrong", result.table()


@pytest.mark.parametrize("limit", ["nngp", "ntk"])
def test_a_kernel_two_percent_too_large_is_called_wrong(monkeypatch, limit):
    right = kernel_check.beside

    def scaled(derived, *arguments):
        known = right(derived, *arguments)
        known.kernels[limit] *= 1.02
        return known

    monkeypatch.setattr(kernel_check, "beside", scaled)
    result = run_check(RIGHT["erf"](), limit=limit, **{**KERNELS, "steps": 0, "fit_steps": 0, "seeds": 8})
    assert f"the {limit.upper()} kernel" in alarms(result), result.table()
    assert result.verdict.answer == "wrong"


# --- decisions ----------------------------------------------------------------------------------------------------


def slope(value, scatter=0.1, widths=(128, 256, 512, 1024, 2048), seeds=8):
    return Slope("step 1", value, scatter, widths, seeds)


def deviation(size, error=0.002, **options):
    return Deviation("the initial logits", size, error, (4.0, 28.0), **options)


def answer(slopes, deviations):
    return judge(slopes, deviations, 0.75, 1).answer


def test_answers_follow_the_intervals():
    assert answer([slope(-0.5)], [deviation(0.002)]) == "right"
    assert answer([slope(-0.5)], [deviation(0.02)]) == "wrong"
    assert answer([slope(-0.1)], [deviation(0.002)]) == "wrong"
    assert answer([slope(-0.1, 1.0)], [deviation(0.002)]) == "cannot tell"
    assert answer([slope(-1.0)], [deviation(0.002)]) == "cannot tell"
    assert answer([slope(-0.2, 0.01, (128, 256, 512), 4)], [deviation(0.002)]) == "cannot tell"
    assert answer([slope(-0.5)], [deviation(0.03, error=0.03)]) == "cannot tell"
    assert answer([slope(float("nan"))], [deviation(0.002)]) == "right"


def test_what_to_add_is_enough_and_more():
    verdict = judge([slope(-0.2, 0.4, (128, 256, 512), 4)], [deviation(0.03, error=0.03)], 0.75, 1)
    assert verdict.widths == (128, 512)
    assert verdict.seeds == 16
    assert half_width(0.4, (128, 256, 512), 16) <= 0.25
    assert str(verdict).endswith("Try --widths 128:512 --seeds 16")
    low, high = judge([slope(-0.2, 0.01, (128, 256, 512), 4)], [], 0.75, 1).widths
    assert low >= 128
    assert high >= max(2048, 16 * low)


def test_limits_together_are_wrong_if_one_is_and_right_if_all_are():
    right, wrong, unknown = (Verdict(a, ()) for a in ("right", "wrong", "cannot tell"))
    assert joint([right, right]) == "right"
    assert joint([right, unknown]) == "cannot tell"
    assert joint([unknown, wrong, right]) == "wrong"


def test_sabotage_changes_what_it_says():
    program = perceptron(tpc.erf)
    graph = check.compile_program(program).graph()
    for name, wrong in WRONG.items():
        changed = wrong.change(check.compile_program(RIGHT[wrong.program]()).graph())
        assert changed != check.compile_program(RIGHT[wrong.program]()).graph(), name
    assert len(kernels_of_steps(graph)) == 3
    assert (PROGRAMS / "mlp.py").is_file()
