"""A job written to config.toml and read back, and what is told about a config that was edited badly."""

import tomllib

import pytest
import tomli_w

from tpc.errors import UsageError
from tpc.tasks.job import TrainJob, parse_drop

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
        ({"epochs": "ten"}, "epochs should be a whole number, not 'ten'"),
        ({"epochs": 1.5}, "epochs should be a whole number"),
        ({"lr": True}, "lr should be a number"),
        ({"lr_mult": ["embed=1"]}, "lr_mult should be a table"),
        ({"lr_drop": "3:0.1"}, "lr_drop should be a list"),
        ({"lr_drop": ["3"]}, "is not EPOCH:FACTOR"),
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


@pytest.mark.parametrize("text", ["", "3", "3:", ":0.1", "-1:0.1", "1.5:0.1", "3:-1", "3:nan", "3:inf", "3:0.1:2"])
def test_malformed_drops(text):
    with pytest.raises(UsageError, match="EPOCH:FACTOR"):
        parse_drop(text)


def test_schedule_of_the_job():
    settings = JOB.train_settings(60_000)
    assert [settings.lr.at(epoch) for epoch in (0, 2, 3, 7)] == [1.0, 1.0, 0.15, pytest.approx(0.15e-3)]
    assert settings.clip.at(9) == 0.4
    assert settings.log_every == 3
