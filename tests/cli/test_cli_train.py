"""Training from the command line: run directories, resuming, killing, evaluation, report."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import tpc
from tests.support.runs import ROOT, Page, assert_same_run, invoke, records, state, steps, tpc_process
from tpc.runtime.training.rundir import RunDir
from tpc.tasks import classify

MLP = ROOT / "programs" / "mlp.py"
QUICK = (
    *("--set", "hidden=1", "--rank", "12", "--limit-train-size", "200", "--batch-size", "16"),
    *("--lr-mult", "readout=2", "--momentum", "0.5"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of two epochs."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    result = invoke("train", MLP, *QUICK, "--epochs", 2, "--out", path)
    assert result.exit_code == 0, result.output
    return path, result.output


def test_a_run_directory_holds_everything(finished):
    path, output = finished
    assert sorted(p.name for p in path.iterdir()) == [
        "checkpoints", "config.toml", "metrics.jsonl", "plots", "program.py", "report.html",
    ]  # fmt: skip
    assert (path / "program.py").read_bytes() == MLP.read_bytes()
    assert str(path / "report.html") in output
    assert len(re.findall(r"^epoch \d/2 ", output, re.MULTILINE)) == 2
    assert "\x1b" not in output
    epochs = [r for r in records(path) if r["kind"] == "epoch"]
    assert len(records(path)) == 26 + 2
    assert epochs[-1]["test_accuracy"] > 0.5  # 200 digits, two epochs
    assert f"test accuracy {epochs[-1]['test_accuracy']:.2%}" in output


def test_config_repeats_the_run(finished, tmp_path):
    path, _ = finished
    config = tomllib.loads((path / "config.toml").read_text())
    assert config["tpc_version"] == tpc.__version__
    assert config["lr_mult"] == {"readout": 2.0}
    result = invoke("train", "--config", path / "config.toml", "--out", tmp_path / "again", "--no-report")
    assert result.exit_code == 0, result.output
    assert_same_run(path, tmp_path / "again")
    other = invoke(
        "train",
        "--config",
        path / "config.toml",
        "--out",
        tmp_path / "o",
        "--no-report",
        "--seed",
        1,
        "--epochs",
        1,
    )
    assert other.exit_code == 0
    assert records(tmp_path / "o")[-1]["test_loss"] != records(path)[13]["test_loss"]


def test_more_epochs_by_resume_equal_a_longer_run(finished, tmp_path):
    path, _ = finished
    assert invoke("train", MLP, *QUICK, "--epochs", 1, "--out", tmp_path / "r", "--no-report").exit_code == 0
    result = invoke("train", "--resume", tmp_path / "r", "--epochs", 2, "--no-report")
    assert result.exit_code == 0, result.output
    assert_same_run(path, tmp_path / "r")
    assert tomllib.loads((tmp_path / "r" / "config.toml").read_text())["epochs"] == 2


def test_resume_refuses_what_would_make_it_another_run(finished):
    path, _ = finished
    result = invoke("train", "--resume", path, "--lr", "0.5")
    assert result.exit_code == 2
    assert "--lr cannot change when a run is resumed" in result.output


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("batch_size", 0, "batch_size to be a whole number from 1 on, got 0"),
        ("batch_size", 100, "batch_size = 100 but the checkpoint was trained with 16"),
        ("limit_train_size", "a", "limit_train_size to be a whole number"),
        ("lr", -1, "lr to be a positive finite number"),
        ("lr_drop", [3], "3 is not EPOCH:FACTOR"),
        ("lr_mult", 3, "lr_mult to be a table"),
        ("lr_mult", {"foo": 1}, "lr_mult = {'foo': 1} but the checkpoint was trained with {'readout': 2.0}"),
        ("limit", "ntk", "the ntk limit is a kernel, which is not trained"),
        ("backend", "torch", "the torch backend is not in this version"),
        ("dtype", "float64", "dtype = 'float64' but the checkpoint was trained with 'float32'"),
        ("dtype", "float16", "the float16 dtype is not in this version"),
        ("rank", 13, "rank = 13 but the checkpoint was trained with 12"),
        ("mode", "folded", "mode = 'folded' but the checkpoint was trained with 'exact'"),
        ("storage", "bfloat16", "storage = 'bfloat16' but the checkpoint was trained with its default"),
        ("window", 8, "window (--window) needs mode folded"),
        ("seed", 1, "seed = 1 but the checkpoint was trained with 0"),
        ("lr", 0.25, "lr = 0.25 but the checkpoint was trained with 0.5"),
        ("lr_schedule", "cosine", "lr_schedule = 'cosine' but the checkpoint was trained with 'constant'"),
        ("loss", "mse", "loss = 'mse' but the checkpoint was trained with 'cross_entropy'"),
        ("momentum", 0.9, "momentum = 0.9 but the checkpoint was trained with 0.5"),
        ("weight_decay", 0.1, "weight_decay = 0.1 but the checkpoint was trained with 0.0"),
        ("clip", 1.0, "clip = 1.0 but the checkpoint was trained with 0.0"),
        ("limit_train_size", 208, "limit_train_size = 208 but the checkpoint was trained with 200"),
        ("program", str(ROOT / "README.md"), "README.md' but the checkpoint was trained with '"),
        ("function", "g", "function = 'g' but the checkpoint was trained with its default"),
        ("settings", {"hidden": 2}, "settings = {'hidden': 2} but the checkpoint was trained with {'hidden': 1}"),
    ],
)
def test_a_config_edited_into_another_training_is_refused(finished, tmp_path, entry, value, told):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    config = tomllib.loads((run / "config.toml").read_text())
    (run / "config.toml").write_text(tomli_w.dumps(config | {entry: value}))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    result = invoke("train", "--resume", run, "--epochs", 3)
    assert result.exit_code == 2
    assert told in result.output
    assert "internal error" not in result.output
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [("window", 9, "window = 9 but the checkpoint was trained with 8"),
     ("fold_coefficients", "taylor", "fold_coefficients = 'taylor'"), ("fold_degree", 3, "fold_degree = 3"),
     ("fold_points", 20, "fold_points = 20")],
)  # fmt: skip
def test_a_folded_run_keeps_its_folding(tmp_path, entry, value, told):
    run = tmp_path / "r"
    settings = ("--mode", "folded", "--window", "8", "--momentum", "0", "--epochs", 1, "--out", run, "--no-report")
    assert invoke("train", MLP, *QUICK, *settings).exit_code == 0
    assert {"hidden1", "readout"} >= records(run)[-1]["fold_remainder"].keys() >= {"readout"}
    config = tomllib.loads((run / "config.toml").read_text())
    (run / "config.toml").write_text(tomli_w.dumps(config | {entry: value}))
    result = invoke("train", "--resume", run, "--epochs", 2, "--no-report")
    assert result.exit_code == 2
    assert told in result.output


def test_damaged_metrics_are_mended_and_told_before_training_goes_on(finished, tmp_path):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    whole = (run / "metrics.jsonl").read_bytes()
    damaged = b"X" + whole[1:] + bytes(700)
    (run / "metrics.jsonl").write_bytes(damaged)
    result = invoke("train", "--resume", run, "--epochs", 3)
    assert result.exit_code == 0, result.output
    told = f"warning: {run / 'metrics.jsonl'} has 2 lines that are no records: 27 records are kept"
    assert 0 <= result.output.index(told) < result.output.index("epoch 3/3")
    assert (run / "metrics.jsonl.damaged").read_bytes() == damaged
    assert records(run)[:27] == records(path)[1:]


def test_evaluation_refuses_an_edited_config_too(finished, tmp_path):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    config = tomllib.loads((run / "config.toml").read_text())
    (run / "config.toml").write_text(tomli_w.dumps(config | {"loss": "mse"}))
    result = invoke("eval", run)
    assert result.exit_code == 2
    assert "loss = 'mse' but the checkpoint was trained with 'cross_entropy'" in result.output


def test_what_may_change_may_change_in_the_file_too(finished, tmp_path):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    config = tomllib.loads((run / "config.toml").read_text())
    free = {"epochs": 3, "backend": "native", "checkpoint_steps": 7, "checkpoint_seconds": 9.0, "data_dir": "."}
    (run / "config.toml").write_text(tomli_w.dumps(config | free))
    result = invoke("train", "--resume", run, "--no-report")
    assert result.exit_code == 0, result.output
    assert "epoch 3/3" in result.output


def test_a_checkpoint_of_an_older_version_recorded_no_settings_and_that_is_told(finished, tmp_path):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    for state_file in run.glob("checkpoints/*/state.json"):
        kept = json.loads(state_file.read_text())
        for name in ("config", "program_sha256", "data", "state_crc32"):
            del kept[name]
        state_file.write_text(json.dumps(kept))
    result = invoke("train", "--resume", run, "--epochs", 3, "--no-report")
    assert result.exit_code == 0, result.output
    assert "is of an older tpc and recorded no settings" in result.stderr


def test_other_data_in_the_same_place_is_refused(finished, tmp_path, monkeypatch):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    load = classify.load_data

    def changed(*arguments):
        data = load(*arguments)
        return replace(data, train_y=data.train_y[::-1].copy())

    monkeypatch.setattr(classify, "load_data", changed)
    for command in (("train", "--resume", run, "--epochs", 3), ("eval", run)):
        result = invoke(*command)
        assert result.exit_code == 2
        assert "the data set digits has the checksum 200+297 samples, " in result.output


def test_a_program_that_has_gone_comes_back_or_is_told_before_training(finished, tmp_path):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    program = run / "program.py"
    program.unlink()
    result = invoke("train", "--resume", run, "--no-report")
    assert result.exit_code == 0, result.output
    assert f"{program} had gone; it is there again" in result.stderr
    assert program.read_bytes() == MLP.read_bytes()
    program.write_text("# a comment changes no network\n" + MLP.read_text())
    assert invoke("train", "--resume", run, "--no-report").exit_code == 0
    for wrong in ("Just a text.\n", MLP.read_text().replace("relu", "tanh")):
        program.write_text(wrong)
        result = invoke("train", "--resume", run, "--epochs", 3)
        assert result.exit_code == 1
        assert f"{program} was changed: it is not the program that" in result.output
        assert "epoch 3/3" not in result.output


def test_a_program_that_has_gone_everywhere_is_told_before_training(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(MLP.read_text())
    run = tmp_path / "r"
    assert invoke("train", own, *QUICK, "--epochs", 1, "--out", run, "--no-report").exit_code == 0
    own.write_text(MLP.read_text().replace("relu", "tanh"))
    (run / "program.py").unlink()
    for why in ("is not known to be the same", "is not there, either"):
        result = invoke("train", "--resume", run, "--epochs", 2)
        assert result.exit_code == 1
        assert f"the program of this run, has gone, and {own} {why}" in " ".join(result.output.split())
        own.unlink(missing_ok=True)


def test_a_program_that_needs_a_file_beside_it_is_told_before_training(tmp_path):
    own = tmp_path / "own.py"
    beside = "from pathlib import Path\nHIDDEN = int(Path(__file__).with_name('n.txt').read_text())\n"
    own.write_text(beside + MLP.read_text())
    (tmp_path / "n.txt").write_text("1")
    result = invoke("train", own, *QUICK, "--out", tmp_path / "r")
    assert result.exit_code == 2
    assert "a copy of " in result.output
    assert "FileNotFoundError" in result.output
    assert not (tmp_path / "r").exists()


def test_a_checkpoint_without_its_state_falls_back_to_the_one_before(finished, tmp_path):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    newest, older = sorted((run / "checkpoints").iterdir(), reverse=True)[:2]
    for checkpoint in (newest, older):
        state_file = checkpoint / "state.json"
        kept = json.loads(state_file.read_text())
        del kept["position"]
        state_file.write_text(json.dumps(kept))
        result = invoke("train", "--resume", run, "--no-report")
        if checkpoint == newest:
            assert result.exit_code == 0, result.output
            assert_same_run(path, run)
            shutil.rmtree(run / "checkpoints" / newest.name)
    assert result.exit_code == 1
    assert "no usable checkpoint" in result.output


def test_warnings_of_the_compiler_are_printed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tpc.Limit, "warnings", ("kernel k is singular", "kernel k is singular"), raising=False)
    arguments = ("train", MLP, *QUICK, "--lr", "1e18", "--epochs", 3, "--out", tmp_path / "r")
    for result in (invoke("compile", MLP), invoke(*arguments)):
        assert result.stderr.count("warning: kernel k is singular\n") == 1
        assert "warning" not in result.stdout
    assert "infinite where a latent meets a stored one" in " ".join(result.output.split())


WAYS = {
    "exact": (),
    "folded": ("--mode", "folded", "--window", "32", "--momentum", "0"),
    "native": ("--backend", "native"),
    "folded-sampled": ("--mode", "folded", "--window", "32", "--fold-points", "64", "--momentum", "0"),
    "native-folded-16-bit": (
        "--backend",
        "native",
        "--mode",
        "folded",
        "--window",
        "32",
        "--storage",
        "bfloat16",
        "--momentum",
        "0",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_kill_9_and_resume_equals_an_uninterrupted_run(finished, tmp_path, way):
    path, _ = finished
    quick = (*QUICK, "--epochs", 2, *WAYS[way])
    if WAYS[way]:
        path = tmp_path / "whole"
        assert invoke("train", MLP, *quick, "--out", path, "--no-report").exit_code == 0
    run = tmp_path / "killed"
    process = tpc_process("train", MLP, *quick, "--out", run, "--no-report", "--checkpoint-steps", 1)
    while process.poll() is None and len(steps(run)) < 15:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    taken = len(steps(run))
    assert 15 <= taken < 26
    saved = RunDir(run).checkpoints.require()
    assert saved.state["position"]["step"] >= taken - 1
    result = invoke("train", "--resume", run, "--no-report")
    assert result.exit_code == 0, result.output
    assert_same_run(path, run)
    if "folded" in way:
        assert len(state(run)["readout.A"]) < 100  # of 412: the others are folded


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(finished, tmp_path, name):
    path, _ = finished
    run = tmp_path / "stopped"
    process = tpc_process("train", MLP, *QUICK, "--epochs", 2, "--out", run, "--no-report")
    while process.poll() is None and len(steps(run)) < 5:
        time.sleep(0.001)
    os.kill(process.pid, getattr(signal, name))
    output, _ = process.communicate()
    assert process.returncode == 128 + getattr(signal, name)
    assert f"stopped by {name}" in output
    assert f"tpc train --resume {run}" in output
    assert "Traceback" not in output
    taken = RunDir(run).checkpoints.require().state["position"]["step"]
    assert taken == len(steps(run))
    assert invoke("train", "--resume", run, "--no-report").exit_code == 0
    assert_same_run(path, run)


def test_existing_runs_are_not_overwritten_unasked(finished, tmp_path):
    path, _ = finished
    before = (path / "metrics.jsonl").read_bytes()
    result = invoke("train", MLP, *QUICK, "--out", path)
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (path / "metrics.jsonl").read_bytes() == before


def test_bad_input_leaves_nothing_behind(tmp_path):
    for wrong, told in (
        (("--lr-mult", "hidden7=2"), "embed, embed.bias, readout"),
        (("--set", "classes=3"), "--set classes=10"),
        (("--limit-train-size", "99999"), "99,999"),
        (("--backend", "tpu"), "tpu"),
    ):
        result = invoke("train", MLP, *QUICK, *wrong, "--out", tmp_path / "run")
        assert result.exit_code in (1, 2)
        assert told in result.output
        assert "Traceback" not in result.output
        assert list(tmp_path.iterdir()) == []


def test_divergence_is_told_with_advice(tmp_path):
    result = invoke("train", MLP, *QUICK, "--lr", "1e18", "--epochs", 3, "--out", tmp_path / "r")
    assert result.exit_code == 1
    assert "training diverged" in result.output
    assert "--clip" in result.output
    assert RunDir(tmp_path / "r").checkpoints.newest() is not None


def test_eval_agrees_with_the_end_of_training(finished):
    path, _ = finished
    last = records(path)[-1]
    report = json.loads(invoke("eval", path, "--json").output)
    assert report["accuracy"] == last["test_accuracy"]
    assert report["loss"] == last["test_loss"]
    assert report["step"] == last["step"]
    matrix = np.array(report["confusion"])
    assert matrix.trace() / matrix.sum() == pytest.approx(last["test_accuracy"])
    text = invoke("eval", path).output
    assert f"test accuracy {last['test_accuracy']:.2%}" in text


def test_train_json_prints_one_object(tmp_path):
    process = subprocess.run(
        [
            sys.executable,
            ROOT / "cli.py",
            "train",
            MLP,
            *QUICK,
            "--epochs",
            "1",
            "--out",
            tmp_path / "r",
            "--json",
        ],
        capture_output=True,
        text=True,
    )
    record = json.loads(process.stdout)
    assert record["run"] == str(tmp_path / "r")
    assert 0 <= record["test_accuracy"] <= 1
    assert "epoch 1/1" in process.stderr


def test_report_is_self_contained_and_complete(finished):
    path, _ = finished
    text = (path / "report.html").read_text()
    page = Page(text)
    assert {"curves", "confusion", "program", "graph", "limit", "kernels", "update", "settings"} <= page.ids
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert "features" in page.ids
    assert "def mlp(" in text
    assert ("gradient norms, smoothed" in text) != ("are measured where gradients are clipped" in text)
    assert len(text) < 2_000_000
    for name in ("curves", "confusion"):
        ET.parse(path / "plots" / f"{name}.svg")


def test_default_program_and_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "mlp.py").write_text(MLP.read_text())
    result = invoke("train", *QUICK, "--epochs", 1, "--no-report")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "mlp-digits-1" / "config.toml").is_file()
