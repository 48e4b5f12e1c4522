"""Run directories: fresh names, refusals, settings and metrics."""

import json
from pathlib import Path

import numpy as np
import pytest

from tpc.errors import DataError, UsageError, UserError
from tpc.runtime import rundir
from tpc.runtime.rundir import MetricsLog, RunDir


def test_default_names_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(rundir.create(None, "mlp-digits").path) == "runs/mlp-digits-1"
    assert str(rundir.create(None, "mlp-digits").path) == "runs/mlp-digits-2"


def test_an_existing_run_is_kept_unless_overwrite(tmp_path):
    run = rundir.create(tmp_path / "run", "x")
    run.write_config({"program": "p.py"})
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"already holds a run.*--resume.*--overwrite"):
        rundir.create(tmp_path / "run", "x")
    rundir.create(tmp_path / "run", "x", overwrite=True)
    assert [p.name for p in run.path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_directory_is_never_touched(tmp_path, overwrite):
    (tmp_path / "plots").mkdir()
    with pytest.raises(UsageError, match="not a run directory"):
        rundir.create(tmp_path, "x", overwrite)
    assert (tmp_path / "plots").exists()


def test_an_empty_directory_may_be_used_but_a_file_may_not(tmp_path):
    rundir.create(tmp_path, "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        rundir.create(tmp_path / "file", "x", overwrite=True)


def test_config_round_trip_without_none(tmp_path):
    run = RunDir(tmp_path)
    run.write_config({"lr": 0.1, "clip": None, "lr_mult": {"embed": 0.3, "x": None}, "drops": ["3:0.1"]})
    assert run.read_config() == {"lr": 0.1, "lr_mult": {"embed": 0.3}, "drops": ["3:0.1"]}
    (tmp_path / "config.toml").write_text("a = [")
    with pytest.raises(DataError, match="not valid TOML"):
        run.read_config()


def test_open_run_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        rundir.open_run(tmp_path / "no")
    with pytest.raises(UsageError, match=r"has no config\.toml"):
        rundir.open_run(tmp_path)


def test_metrics_are_cut_to_the_recorded_size(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write({"step": 1, "loss": np.float64(0.1)})
    size = log.sync()
    log.write({"step": 2, "loss": float("nan"), "grad_norm": {"embed": float("inf")}})
    log.close()
    run = RunDir(tmp_path)
    assert run.read_metrics()[1] == {"step": 2, "loss": None, "grad_norm": {"embed": None}}
    resumed = MetricsLog(path, size)
    resumed.write({"step": 2})
    resumed.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_recorded_size_beyond_the_file_adds_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 1000)
    log.write({"step": 1})
    log.close()
    assert path.read_text() == '{"step": 1}\n'


def test_a_torn_last_line_is_passed_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step"')
    assert RunDir(tmp_path).read_metrics() == [{"step": 1}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"step": 1}\nnonsense\n', "line 2 is not JSON"),
        (b'{"step": 1}\n\xff\xfe\n', "line 2 is not JSON"),
        (b"[1]\n", "line 1 is not a record"),
        (b'{"kind": "step", "step": 1}\n', "line 1 lacks loss, accuracy"),
        (b'{"kind": "epoch"}\n', "line 1 lacks epoch, step, train_loss"),
    ],
)
def test_damaged_metrics_are_told_by_line(tmp_path, text, told):
    (tmp_path / "metrics.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=told):
        RunDir(tmp_path).read_metrics()


def test_what_lies_after_the_recorded_size_may_be_damaged(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    assert RunDir(tmp_path).read_metrics(12) == [{"step": 1}]
    with pytest.raises(DataError, match="line 1 ends in the middle"):
        RunDir(tmp_path).read_metrics(5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_metrics_on_a_full_disk_are_told(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.close()
    with open("/dev/full", "wb") as full:
        log._file = full
        with pytest.raises(UserError, match=r"cannot write to .*metrics\.jsonl: No space left on device"):
            log.write({"step": 1})
        log.close()
