"""Few-shot learning from the command line: learning, resuming, killing, evaluation, report, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import tpc
from tests.support.omniglot_samples import write_legible, write_omniglot
from tests.support.runs import ROOT, Page, assert_same_run, invoke, records, state, steps, tpc_process
from tpc.runtime.training.rundir import RunDir
from tpc.runtime.training.settings import Schedule

MAML, MLP = ROOT / "programs" / "maml.py", ROOT / "programs" / "mlp.py"
SMALL = ("--ways", 3, "--set", "classes=3", "--rank", 16, "--tasks", 4, "--batches", 25, "--episodes", 60)
STEPS = 2 * 25


@pytest.fixture(scope="module")
def omniglot(tmp_path_factory):
    return write_legible(tmp_path_factory.mktemp("data") / "omniglot")


@pytest.fixture(scope="module")
def small(omniglot):
    """The arguments of a small run of two epochs, the paper's rate and clipping."""
    return ("fewshot", MAML, "--data-dir", omniglot, *SMALL, "--epochs", 2)


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """An uninterrupted run."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    result = invoke(*small, "--out", path)
    assert result.exit_code == 0, result.output
    return path, result.output


def test_it_learns_to_learn(finished):
    path, output = finished
    first, *_, last = output.splitlines()
    assert first.startswith(
        "pi-limit of maml on omniglot: 3-way 1-shot, 48 training, 16 validation and 4 test classes (vinyals split)"
    )
    assert last == f"report: {path / 'report.html'}"
    assert [r["epoch"] for r in records(path) if r["kind"] == "epoch"] == [1, 2]
    assert len(steps(path)) == STEPS
    report = json.loads(invoke("eval", path, "--episodes", 200, "--json").output)
    assert report["accuracy"] - report["interval_95"] > 0.5  # of classes never seen in training, 0.33 by chance


def test_before_training_only_the_support_teaches(finished, small, tmp_path):
    path, _ = finished
    arguments = (*small, "--lr", 1e-6, "--epochs", 1, "--batches", 2, "--no-report", "--out", tmp_path / "r")
    assert invoke(*arguments).exit_code == 0
    untrained, trained = (
        json.loads(invoke("eval", run, "--episodes", 200, "--json").output) for run in (tmp_path / "r", path)
    )
    assert trained["accuracy"] > untrained["accuracy"] + 0.1


def test_the_rate_follows_the_cosine_and_losses_are_means_over_tasks(finished):
    path, _ = finished
    expected = [0.5 * 32 * (1 + np.cos(np.pi * k / STEPS)) for k in range(STEPS)]
    np.testing.assert_allclose([r["lr"] for r in steps(path)], expected, rtol=1e-12)
    assert steps(path)[0]["loss"] == pytest.approx(np.log(3), rel=0.01)  # little is learned from one sample at first


def test_config_repeats_the_run(finished, tmp_path):
    path, _ = finished
    config = tomllib.loads((path / "config.toml").read_text())
    assert (config["task"], config["ways"], config["clip"], config["lr_schedule"]) == ("fewshot", 3, 0.1, "cosine")
    result = invoke("fewshot", "--config", path / "config.toml", "--out", tmp_path / "again", "--no-report")
    assert result.exit_code == 0, result.output
    assert_same_run(path, tmp_path / "again")


def test_no_clipping_survives_the_config(small, tmp_path):
    quick = ("--epochs", 1, "--batches", 2, "--no-report", "--lr", 1)
    assert invoke(*small, *quick, "--clip", 0, "--out", tmp_path / "a").exit_code == 0
    assert "grad_norm" not in steps(tmp_path / "a")[0]
    config = tmp_path / "a" / "config.toml"
    assert invoke("fewshot", "--config", config, "--out", tmp_path / "b", "--no-report").exit_code == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")


WAYS = {
    "numpy": (),
    "numpy-folded": ("--mode", "folded", "--window", 32),
    "native": ("--backend", "native"),
    "native-folded-16-bit": ("--backend", "native", "--mode", "folded", "--window", 32, "--storage", "bfloat16"),
}


@pytest.mark.parametrize("way", WAYS)
def test_kill_9_and_resume_equals_an_uninterrupted_run(finished, small, tmp_path, way):
    path, _ = finished
    if WAYS[way]:
        path = tmp_path / "whole"
        assert invoke(*small, *WAYS[way], "--out", path, "--no-report").exit_code == 0
        last = records(path)[-1]
        assert last["validation_accuracy"] > 0.5
    run = tmp_path / "killed"
    process = tpc_process(*small, *WAYS[way], "--out", run, "--no-report", "--checkpoint-steps", 1)
    while process.poll() is None and len(steps(run)) < 30:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    taken = len(steps(run))
    assert 30 <= taken < STEPS
    assert RunDir(run).checkpoints.require().state["position"]["step"] >= taken - 1
    result = invoke("fewshot", "--resume", run, "--no-report")
    assert result.exit_code == 0, result.output
    assert_same_run(path, run)
    if "folded" in way:
        assert len(state(run)["hidden1.A"]) < 300 < 16 + STEPS * 4 * 3  # the others are folded


def test_ctrl_c_names_the_command_that_goes_on(finished, small, tmp_path):
    path, _ = finished
    run = tmp_path / "stopped"
    process = tpc_process(*small, "--out", run, "--no-report")
    while process.poll() is None and len(steps(run)) < 10:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert "stopped by SIGINT" in output
    assert f"tpc fewshot --resume {run}" in output
    assert "Traceback" not in output
    assert invoke("fewshot", "--resume", run, "--no-report").exit_code == 0
    assert_same_run(path, run)


def test_resume_refuses_another_kind_of_run(finished, tmp_path):
    path, _ = finished
    wrong = invoke("train", "--resume", path, "--epochs", 3)
    assert (wrong.exit_code, f"go on with it by: tpc fewshot --resume {path}" in wrong.output) == (2, True)
    plain = tmp_path / "plain"
    arguments = ("--set", "hidden=1", "--rank", 4, "--limit-train-size", 40, "--epochs", 1, "--no-report")
    assert invoke("train", MLP, *arguments, "--out", plain).exit_code == 0
    wrong = invoke("fewshot", "--resume", plain)
    assert (wrong.exit_code, f"go on with it by: tpc train --resume {plain}" in wrong.output) == (2, True)
    wrong = invoke("fewshot", "--config", plain / "config.toml")
    assert (wrong.exit_code, "the configuration is of `tpc train`, not of `tpc fewshot`" in wrong.output) == (2, True)
    wrong = invoke("eval", plain, "--queries", 3)
    assert (wrong.exit_code, "--queries and --support-shift are for few-shot runs" in wrong.output) == (2, True)


def test_a_cosine_ends_where_it_was_to_end(finished, small, tmp_path):
    path, _ = finished
    refused = invoke("fewshot", "--resume", path, "--epochs", 3)
    assert refused.exit_code == 2
    assert "--epochs cannot change" in refused.output
    assert "along a cosine over 2 epochs" in refused.output
    assert invoke("fewshot", "--resume", path, "--epochs", 2, "--no-report").exit_code == 0
    constant = ("--lr-schedule", "constant", "--lr", 8, "--no-report")
    assert invoke(*small, *constant, "--out", tmp_path / "two").exit_code == 0
    assert invoke(*small, *constant, "--epochs", 1, "--out", tmp_path / "r").exit_code == 0
    assert invoke("fewshot", "--resume", tmp_path / "r", "--epochs", 2, "--no-report").exit_code == 0
    assert_same_run(tmp_path / "two", tmp_path / "r")


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("ways", 4, "ways = 4 but the checkpoint was trained with 3"),
        ("ways", 1, "ways to be a whole number from 2 on, got 1"),
        ("batches", 10, "batches = 10 but the checkpoint was trained with "),
        ("episodes", 1, "episodes to be a whole number from 2 on"),
        ("data", "digits", "data = 'digits' but the checkpoint was trained with 'omniglot'"),
        ("split", "other", "split = 'other' but the checkpoint was trained with "),
        ("task", "reptile", "a task among train, fewshot, got 'reptile'"),
        ("clip", -1, "or 0 for no clipping, got -1"),
    ],
)
def test_a_config_edited_into_another_training_is_refused(finished, tmp_path, entry, value, told):
    path, _ = finished
    run = Path(shutil.copytree(path, tmp_path / "r"))
    config = tomllib.loads((run / "config.toml").read_text())
    (run / "config.toml").write_text(tomli_w.dumps(config | {entry: value}))
    result = invoke("fewshot", "--resume", run)
    assert result.exit_code == 2
    assert told in result.output


LINEAR = """import tpc


def linear(x, *, classes=3):
    h = tpc.dense(tpc.dense(x, name="embed"), name="hidden1")
    return tpc.adapt(tpc.readout(h, classes), layers="readout", zero="readout", step_size=0.1)
"""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--ways", 4), "3 outputs but tasks have 4 classes (--ways); if the program takes `classes`, give "
                        "--set classes=4."),
        (("--ways", 5), "5-way tasks (--ways) need 5 test classes; the vinyals split of omniglot has 4."),
        (("--shots", 15, "--queries", 6), "15 support samples (--shots) and 6 queries (--queries) of a class need 21 "
                                          "images of it; omniglot has 20."),
        (("--lr-mult", "embd=2"), "no parameter called 'embd'"),
        (("--limit", "mean"), "available: pi"),
        (("--data", "cifar10"), "few-shot data among omniglot, got 'cifar10'"),
        (("--episodes", 1), "--episodes"),
        (("--ways", 1), "--ways"),
        (("--lr-drop", "2:0.1"), "never takes effect"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_are_refused_before_anything_is_written(small, tmp_path, wrong, told):
    result = invoke(*small, *wrong, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_programs_of_the_other_command_are_told(omniglot, tmp_path):
    plain = invoke("fewshot", MLP, "--data-dir", omniglot, "--out", tmp_path / "r")
    assert plain.exit_code == 2
    assert "does not adapt to tasks: let it return tpc.adapt(f, …)" in plain.output
    adapted = invoke("train", MAML, "--out", tmp_path / "r")
    assert adapted.exit_code == 2
    assert "train it with tpc fewshot" in adapted.output
    assert list(tmp_path.iterdir()) == []


def test_missing_data_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TPC_DATA_DIR", str(tmp_path / "data"))
    result = invoke("fewshot", MAML, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert f"in {tmp_path / 'data'}, which is not a folder" in result.output
    assert "tpc data get omniglot" in result.output
    assert list(tmp_path.iterdir()) == []


def test_data_without_validation_classes_are_measured_on_the_test_classes(small, tmp_path):
    run = tmp_path / "r"
    options = ("--split", "background", "--epochs", 1, "--batches", 2)
    result = invoke(*small, *options, "--out", run)
    assert result.exit_code == 0, result.output
    assert "48 training, no validation and 8 test classes (background split)" in result.output
    epoch = records(run)[-1]
    assert "validation_accuracy" not in epoch
    assert f"test accuracy {epoch['test_accuracy']:.2%} ±" in result.output  # of the same tasks
    refused = invoke("eval", run, "--split", "validation")
    assert refused.exit_code == 2
    assert "the background split of omniglot has no validation classes" in refused.output


def test_eval_agrees_with_the_end_of_training(finished):
    path, output = finished
    last = records(path)[-1]
    found = json.loads(invoke("eval", path, "--split", "validation", "--json").output)
    assert (found["accuracy"], found["loss"]) == (last["validation_accuracy"], last["validation_loss"])
    assert (found["tasks"], found["step"], found["split"]) == (60, STEPS, "validation")
    assert found["alphabets"]["Ge-ez"]["queries"] == 60 * 3
    test = json.loads(invoke("eval", path, "--json").output)
    assert f"test accuracy {test['accuracy']:.2%} ± {test['interval_95']:.2%}, test loss {test['loss']:.4f}" in output
    text = invoke("eval", path).output
    assert f"test accuracy {test['accuracy']:.2%} ± {test['interval_95']:.2%} over 60 tasks (95 % interval)" in text
    assert f"Tifinagh │     180 │ {test['accuracy']:.1%}" in text
    train = json.loads(invoke("eval", path, "--split", "train", "--queries", 5, "--episodes", 7, "--json").output)
    assert set(train["alphabets"]) <= {"Greek", "N_Ko"}
    assert sum(a["queries"] for a in train["alphabets"].values()) == 7 * 3 * 5
    moved = json.loads(invoke("eval", path, "--support-shift", 1, "--json").output)
    assert moved["tasks"] == test["tasks"]
    assert moved["loss"] != test["loss"]
    assert json.loads(invoke("eval", path, "--support-shift", 0, "--json").output) == test
    too_many = invoke("eval", path, "--queries", 20)
    assert too_many.exit_code == 2
    assert "need 21 images" in too_many.output


def test_eval_on_another_backend(finished):
    path, _ = finished
    first, second = (
        json.loads(invoke("eval", path, "--backend", backend, "--json").output) for backend in ("numpy", "native")
    )
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)


def test_json_prints_one_object(small, tmp_path):
    command = [sys.executable, ROOT / "cli.py", *small, "--epochs", 1, "--batches", 2, "--no-report", "--json"]
    command += ["--out", tmp_path / "r"]
    process = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    record = json.loads(process.stdout)
    assert set(record) == {"test_accuracy", "test_loss", "interval_95", "run"}
    assert record["run"] == str(tmp_path / "r")
    assert "epoch 1/1" in process.stderr


def test_the_report_has_alphabets_and_representations(finished):
    path, output = finished
    text = (path / "report.html").read_text()
    page = Page(text)
    assert {"curves", "features", "alphabets", "program", "graph", "limit", "kernels", "update", "settings"} <= page.ids
    assert "confusion" not in page.ids
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert "<td>Tifinagh</td>" in text
    assert "60 tasks, " in text
    assert "best validation accuracy" in text
    assert " ± " in output
    for title in ("π-limit, before training", "π-limit, trained", "Tifinagh 1"):
        assert title in text
    assert sorted(p.name for p in (path / "plots").iterdir()) == ["curves.svg", "features.svg"]
    ET.parse(path / "plots" / "features.svg")


def test_a_network_without_nonlinearity_has_a_report_without_representations(omniglot, tmp_path):
    (tmp_path / "linear.py").write_text(LINEAR)
    arguments = ("--data-dir", omniglot, *SMALL, "--batches", 2, "--epochs", 1, "--out", tmp_path / "r")
    result = invoke("fewshot", tmp_path / "linear.py", *arguments)
    assert result.exit_code == 0, result.output
    assert "features" not in Page((tmp_path / "r" / "report.html").read_text()).ids


def test_divergence_names_a_lower_rate_than_the_one_given(small, tmp_path):
    program = tmp_path / "linear.py"
    program.write_text(LINEAR)
    arguments = [a if a != MAML else program for a in small]
    result = invoke(*arguments, "--lr", 1e30, "--clip", 0, "--out", tmp_path / "r", "--no-report")
    assert result.exit_code == 1
    assert "training diverged" in result.output
    assert "--lr 2.5e+29" in result.output


def test_default_program_and_directory(omniglot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = invoke("fewshot", "--data-dir", omniglot, *SMALL)
    assert refused.exit_code == 2
    assert "maml.py" in refused.output
    (tmp_path / "programs").mkdir()
    shutil.copyfile(MAML, tmp_path / "programs" / "maml.py")
    result = invoke("fewshot", "--data-dir", omniglot, *SMALL, "--epochs", 1, "--batches", 1, "--no-report")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "maml-omniglot-1" / "config.toml").is_file()


def test_the_official_form_without_a_split_file_works_too(tmp_path):
    data = write_omniglot(tmp_path / "omniglot")  # nine characters: 24 training, 4 validation and 2 test classes
    options = ("--ways", 2, "--set", "classes=2", "--rank", 6, "--batches", 2, "--epochs", 1, "--episodes", 9)
    result = invoke("fewshot", MAML, "--data-dir", data, *options, "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert "(seeded split)" in result.output
    assert "features" in Page((tmp_path / "r" / "report.html").read_text()).ids


def test_mirror_images_and_shifts_are_for_training_alone(small, tmp_path, finished):
    arguments = (*small, "--epochs", 1, "--mirror", "--shift", 1, "--no-report", "--out", tmp_path / "r")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "96 training, 16 validation and 4 test classes" in result.output
    plain, _ = finished
    one, other = (
        json.loads(invoke("eval", run, "--episodes", 20, "--json").output)["alphabets"]
        for run in (tmp_path / "r", plain)
    )
    assert {name: found["queries"] for name, found in one.items()} == {n: f["queries"] for n, f in other.items()}
    assert steps(tmp_path / "r")[0]["loss"] != steps(plain)[0]["loss"]
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert (config["mirror"], config["shift"]) == (True, 1)


def test_momentum_more_shots_and_first_order(small, tmp_path):
    options = ("--shots", 3, "--queries", 2, "--set", "steps=2", "--set", "order=1", "--momentum", 0.5, "--lr", 4)
    result = invoke(*small, *options, "--epochs", 1, "--no-report", "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert (
        records(tmp_path / "r")[-1]["atoms"]
        == tpc.Model.load(RunDir(tmp_path / "r").checkpoints.require().model_path).atoms
    )


def test_a_schedule_falls_from_its_value_to_zero():
    cosine = Schedule(2.0, ((1, 0.5),), cosine=True)
    assert [cosine.at(0, 0.0), cosine.at(1, 0.5), cosine.at(1, 1.0)] == [2.0, pytest.approx(0.5), pytest.approx(0.0)]
    assert Schedule(2.0, ((1, 0.5),)).at(1, 0.9) == 1.0
