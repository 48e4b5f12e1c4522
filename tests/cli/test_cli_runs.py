"""A run and a second process, numbers that are not finite, and JSON that every reader accepts."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy

from tests.support.runs import ROOT, assert_same_run, invoke, tpc_process
from tpc.runtime.files.json_text import dumps
from tpc.runtime.training.rundir import RunDir

MLP = ROOT / "programs" / "mlp.py"
QUICK = ("--set", "hidden=1", "--rank", 12, "--limit-train-size", 200, "--batch-size", 16)
TRAIN = ("train", MLP, *QUICK, "--no-report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of two epochs."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    result = invoke(*TRAIN, "--epochs", 2, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def strict(text):
    """JSON as RFC 8259 has it."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


# --- two processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.parametrize("way", ["start", "resume"])
def test_a_second_process_is_refused_and_nothing_is_lost(finished, tmp_path, way, attempt):
    run = tmp_path / "r"
    first = ("--out", run)
    if way == "resume":
        assert invoke(*TRAIN, "--epochs", 1, "--out", run).exit_code == 0
        first = ("--resume", run)
    arguments = ("train", "--no-report") if way == "resume" else TRAIN
    process = tpc_process(*arguments, *first, "--epochs", 2)
    while not (run / ".lock").exists() or not (run / ".lock").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    time.sleep(0.05 * attempt)
    os.kill(process.pid, signal.SIGSTOP)
    running = process.poll() is None
    seconds, told = [], []
    for second in (("train", "--resume", run), (*TRAIN, "--out", run, "--overwrite"),
                   ("regress", MLP, "--limit", "ntk", "--out", run, "--overwrite")):  # fmt: skip
        started = time.monotonic()
        told.append(invoke(*second))
        seconds.append(time.monotonic() - started)
    os.kill(process.pid, signal.SIGCONT)
    output, _ = process.communicate()
    assert running, output
    assert process.returncode == 0, output
    for result in told:
        assert result.exit_code == 1
        assert f"{run} is being written by process {process.pid} on " in result.output
        assert "Traceback" not in result.output
    assert max(seconds) < 1
    assert_same_run(finished, run)


def test_reading_takes_no_lock(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "r"))
    with RunDir(run).lock():
        assert invoke("eval", run).exit_code == 0
        refused = invoke("train", "--resume", run)
    assert refused.exit_code == 1
    assert "is being written by process" in refused.output
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.toml", "metrics.jsonl", "program.py"]


def test_evaluation_takes_the_next_checkpoint_when_training_drops_one(finished, tmp_path, monkeypatch):
    from tpc.tasks import classify

    run = Path(shutil.copytree(finished, tmp_path / "r"))
    load = classify.load_trained

    def dropped(path, backend):
        if "epoch-002" in str(path):
            shutil.rmtree(Path(path).parent)
        return load(path, backend)

    monkeypatch.setattr(classify, "load_trained", dropped)
    result = invoke("eval", run)
    assert result.exit_code == 0, result.output
    assert "step 13: test accuracy" in result.output


def test_the_report_is_left_to_a_process_that_goes_on_meanwhile(tmp_path, monkeypatch):
    from tpc.cli import train as command

    run = tmp_path / "r"
    held = []
    drawn = command._drawn
    monkeypatch.setattr(command, "_drawn", lambda *given: [held.append(RunDir(run).lock().acquire()), drawn(*given)][1])
    result = invoke("train", MLP, *QUICK, "--epochs", 1, "--out", run)
    held[0].release()
    assert result.exit_code == 0
    assert "warning: the report is left to that process" in result.output
    assert not (run / "report.html").exists()


# --- numbers that are not finite -------------------------------------------------------------------------------------


def poison(checkpoint, number, column):
    """Put a number into a saved model, with the checksums of what it is then."""
    model = checkpoint / "model.npz"
    with np.load(model) as file:
        arrays = {name: file[name].copy() for name in file}
    found = next(name for name in arrays if column in name and arrays[name].size)
    arrays[found].flat[0] = number
    np.savez(model, **arrays)
    state = json.loads((checkpoint / "state.json").read_text())
    from tpc.runtime.training import checkpoint as module

    state |= {"model_bytes": model.stat().st_size, "model_crc32": module._crc32(model)}
    state["state_crc32"] = module._checksum(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    return found


STORES = {"exact": (), "momentum": ("--momentum", 0.5),
          "bfloat16": ("--backend", "native", "--storage", "bfloat16"), "folded": ("--mode", "folded", "--window", 8),
          "finite": ("--width", 16)}  # fmt: skip


@pytest.mark.parametrize("way", STORES)
def test_a_checkpoint_that_is_not_finite_is_told_with_the_one_before(tmp_path, way):
    run = tmp_path / "r"
    assert invoke(*TRAIN, *STORES[way], "--epochs", 1, "--out", run).exit_code == 0
    older, newest = sorted((run / "checkpoints").iterdir())
    number = np.uint16(0x7FC0) if way == "bfloat16" else np.nan
    column = {"exact": "readout/", "momentum": "velocities", "bfloat16": "readout/", "folded": "readout.folded/M",
              "finite": "array/"}[way]  # fmt: skip
    found = poison(newest, number, column)
    for command in (("eval", run), ("eval", run, "--json"), ("train", "--resume", run, "--epochs", 2)):
        result = invoke(*command)
        assert result.exit_code == 1
        assert f"{newest}/model.npz holds numbers that are not finite (in {found})" in result.output.replace("\\n", "")
        assert f"{older.name} (step 0), remove {newest}" in result.output
        assert "internal" not in result.output
        if "--json" in command:
            assert strict(result.stdout)["error"]["exit_code"] == 1
    poison(older, number, "array/" if way == "finite" else "readout/")
    assert "no other checkpoint is usable: start the run again" in invoke("eval", run).output
    shutil.rmtree(newest)
    shutil.rmtree(older)
    assert "no usable checkpoint in" in invoke("eval", run).output


def test_predictions_that_overflow_are_told(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "r"))
    newest = sorted((run / "checkpoints").iterdir())[-1]
    poison(newest, 3e38, "readout/scale")
    result = invoke("eval", run, "--json")
    assert result.exit_code == 1
    assert "of 297 samples are not finite" in strict(result.stdout)["error"]["message"]


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_no_json_holds_numbers_that_are_not_finite():
    record = {"a": [np.inf, -np.inf, np.nan, 1.5], "b": {1e-4: np.float32(np.nan), "c": np.array([1, np.inf])},
              "d": (np.int64(3), True, None, "NaN"), "e": sympy.Float(0.5), "f": mpmath.mpf("inf")}  # fmt: skip
    assert strict(dumps(record)) == {
        "a": [None, None, None, 1.5], "b": {"0.0001": None, "c": [1.0, None]}, "d": [3, True, None, "NaN"],
        "e": 0.5, "f": None,
    }  # fmt: skip


def test_json_of_commands_is_strict_where_results_are_not_finite(monkeypatch):
    from tpc.tasks import check as task
    from tpc.tasks.verdict import Verdict

    class Result:
        ok = False
        verdict = Verdict("wrong", ("made up",))

        def to_dict(self):
            return {"slope": float("nan"), "errors": [float("inf")]}

    monkeypatch.setattr(task, "run_check", lambda *given, **options: Result())
    found = invoke("check", MLP, "--json")
    assert strict(found.stdout) == {"slope": None, "errors": [None]}
