"""A job written to config.toml and read back, and what is told about a config that was edited badly."""

import tomllib

import pytest
import tomli_w

from tpc.cli import options
from tpc.errors import UsageError
from tpc.passes.loss import LOSSES
from tpc.runtime.models.backend import BACKENDS
from tpc.runtime.models.model import MODES
from tpc.tasks.entries import parse_drop
from tpc.tasks.job import TrainJob

JOB = TrainJob(
    "p.py",
    settings={"hidden": 3, "scale": 0.1},
    lr=1.0,
    lr_mult={"embed": 0.1},
    lr_drop=((3, 0.15), (7, 1e-3)),
    clip=0.4,
    limit_train_size=100,
)


def test_a_job_survives_its_config():
    config = {key: value for key, value in JOB.to_config().items() if value is not None}
    assert TrainJob.from_config(tomllib.loads(tomli_w.dumps(config))) == JOB


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"epochs": "ten"}, "expected epochs to be a whole number from 1 on, got 'ten'"),
        ({"epochs": 1.5}, "epochs to be a whole number"),
        ({"epochs": 0}, "epochs to be a whole number from 1 on, got 0"),
        ({"batch_size": 0}, "batch_size to be a whole number from 1 on"),
        ({"rank": True}, "rank to be a whole number"),
        ({"limit_train_size": "a"}, "limit_train_size to be a whole number from 1 on, got 'a'"),
        ({"seed": -1}, "seed to be a whole number from 0 on"),
        ({"lr": True}, "lr to be a positive finite number"),
        ({"lr": -1}, "lr to be a positive finite number, got -1"),
        ({"lr": float("nan")}, "lr to be a positive finite number, got nan"),
        ({"clip": float("inf")}, "clip to be a positive finite number, or 0 for no clipping, got inf"),
        ({"weight_decay": float("nan")}, "weight_decay to be a finite number from 0 on"),
        ({"momentum": 1}, "momentum to be a number from 0 on and below 1"),
        ({"checkpoint_seconds": 0}, "checkpoint_seconds to be a positive"),
        ({"lr_mult": ["embed=1"]}, "lr_mult to be a table"),
        ({"lr_mult": 3}, "lr_mult to be a table"),
        ({"lr_mult": {"embed": -1}}, "multipliers from 0 on"),
        ({"settings": 3}, "settings to be a table"),
        ({"lr_drop": "3:0.1"}, "lr_drop to be a list"),
        ({"lr_drop": ["3"]}, "is not EPOCH:FACTOR"),
        ({"lr_drop": [3]}, "3 is not EPOCH:FACTOR"),
        ({"clip_drop": ["3:0.1"]}, "needs clip"),
        ({"decay_follows_lr_mult": "yes"}, "to be true or false"),
        ({"limit": "ntk"}, "the ntk limit is a kernel, which is not trained; available: pi"),
        ({"limit": "mu"}, "the mu limit is not in this version; available: pi"),
        ({"mode": "sparse"}, "the sparse mode is not in this version; available: exact, folded"),
        ({"backend": 3}, "the 3 backend is not in this version; available: numpy"),
        ({"dtype": ["float32"]}, "available: float32, float64"),
        ({"loss": "hinge"}, "available: cross_entropy, mse"),
        ({"learning_rate": 1.0}, "unknown entry 'learning_rate'"),
    ],
)
def test_a_bad_entry_is_named(entry, told):
    with pytest.raises(UsageError, match=told):
        TrainJob.from_config({"program": "p.py", **entry})


def test_a_config_must_name_a_program_and_may_say_whole_numbers_for_floats():
    with pytest.raises(UsageError, match="names no program"):
        TrainJob.from_config({})
    assert TrainJob.from_config({"program": "p.py", "lr": 1}).lr == 1


def test_a_drop_after_the_end_is_refused():
    TrainJob("p.py", epochs=4, lr_drop=((3, 0.1),)).check_drops()
    with pytest.raises(UsageError, match=r"lr_drop 4:0\.1 .* never takes effect"):
        TrainJob("p.py", epochs=4, lr_drop=((4, 0.1),)).check_drops()


def test_the_choices_of_the_command_line_are_those_of_the_library():
    assert (MODES, BACKENDS, tuple(LOSSES)) == (options.MODES, options.BACKENDS, options.LOSSES)


@pytest.mark.parametrize("text", ["", "3", "3:", ":0.1", "-1:0.1", "1.5:0.1", "3:-1", "3:nan", "3:inf", "3:0.1:2"])
def test_malformed_drops(text):
    with pytest.raises(UsageError, match="EPOCH:FACTOR"):
        parse_drop(text)


def test_schedule_of_the_job():
    settings = JOB.train_settings(60_000)
    assert [settings.lr.at(epoch) for epoch in (0, 2, 3, 7)] == [1.0, 1.0, 0.15, pytest.approx(0.15e-3)]
    assert settings.clip.at(9) == 0.4
    assert settings.log_every == 3
