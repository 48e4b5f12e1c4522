"""Run directories: fresh names, refusals, settings and metrics."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tpc.errors import DataError, UsageError, UserError
from tpc.runtime.training import metrics, rundir
from tpc.runtime.training.position import Position
from tpc.runtime.training.rundir import MetricsLog, RunDir

GOOD = {"position": asdict(Position()), "metrics_bytes": 0}


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
    fresh = rundir.create(tmp_path / "run", "x", overwrite=True)
    assert sorted(p.name for p in run.path.iterdir()) == [".replaced", "notes.txt"]
    fresh.write_config({"program": "new.py"})
    fresh.settle()  # no checkpoint came of it
    assert run.read_config() == {"program": "p.py"}
    rundir.create(tmp_path / "run", "x", overwrite=True).checkpoints.write(0, 0, GOOD, lambda path: path.touch())
    fresh.settle()
    assert sorted(p.name for p in run.path.iterdir()) == ["checkpoints", "notes.txt"]


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


def line(step, epoch=0, **entries):
    record = {"kind": "step", "step": step, "epoch": epoch, "loss": 0.5, "accuracy": 0.25}
    return json.dumps(record | entries).encode() + b"\n"


def epoch_line(epoch, step):
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "atoms", "bytes", "seconds")
    return json.dumps({"kind": "epoch", "epoch": epoch, "step": step, **dict.fromkeys(names, 1.0)}).encode() + b"\n"


WHOLE = line(1) + line(2) + epoch_line(1, 2) + line(3, 1)
SIZE = len(WHOLE)
OTHERS = "has other records than the checkpoint recorded"
FIRST, REST = line(1), line(2) + epoch_line(1, 2) + line(3, 1)
MENDED = {
    "what came later is cut off": (WHOLE + line(4, 1), SIZE, ""),
    "a torn line after it": (WHOLE + b'{"kind": "st', SIZE, ""),
    "NUL bytes within": (FIRST + bytes(500) + REST, SIZE, OTHERS),
    "NUL bytes for a line": (FIRST + bytes(40) + b"\n" + REST, SIZE, "has 1 line that"),
    "two processes": (FIRST + line(2) + REST + FIRST + line(3, 1) + line(4, 1), SIZE, OTHERS),
    "nonsense within": (FIRST + b"nonsense\n" + REST, SIZE + 9, "has 1 line that"),
    "a size beyond the file": (WHOLE, 10**9, "bytes of the 1,000,000,000 that the checkpoint recorded"),
    "a size within a record": (WHOLE, SIZE - 3, f"{OTHERS} in its first {SIZE - 3} bytes"),
}


@pytest.mark.parametrize("damage", MENDED)
def test_metrics_are_mended_to_those_of_the_checkpoint(tmp_path, damage):
    text, size, told = MENDED[damage]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text)
    length, said = metrics.mend(path, size, epoch=1, step=3)
    log = MetricsLog(path, length)
    log.close()
    assert path.read_bytes() == WHOLE
    assert (told in said) if told else not said
    kept = tmp_path / "metrics.jsonl.damaged"
    assert kept.exists() == bool(told)
    if told:
        assert kept.read_bytes() == text
        assert str(path) in said
        assert "metrics.jsonl.damaged" in said


def test_a_lost_record_stays_lost_and_is_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + b"\xff\xfe\n" + epoch_line(1, 2) + line(3, 1))
    _, said = metrics.mend(path, path.stat().st_size, epoch=1, step=3)
    assert path.read_bytes() == line(1) + epoch_line(1, 2) + line(3, 1)
    assert "has 1 line that are no records: 3 records are kept" in said
    path.unlink()
    assert metrics.mend(path, SIZE, 1, 3) == (
        0, f"{path} is gone or empty, so that the report will lack the records before this checkpoint",
    )  # fmt: skip


def test_two_logs_never_leave_a_hole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsLog(path)
    first.write({"step": 1})
    second = MetricsLog(path, 0)
    first.write({"step": 2})
    for log in (first, second):
        log.close()
    assert b"\0" not in path.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_metrics_on_a_full_disk_are_told(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.close()
    with open("/dev/full", "wb") as full:
        log._file = full
        with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
            log.write({"step": 1})
        log.close()
