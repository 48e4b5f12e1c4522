"""Kernel regression and Table 1 from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import cli
import tpc
from tpc.data import load as load_data
from tpc.tasks import regress, table1
from tpc.tasks.regress import RegressJob, require_room

ROOT = Path(__file__).parents[2]
MLP, MAML = ROOT / "programs" / "mlp.py", ROOT / "programs" / "maml.py"
SMALL = ("--limit-train-size", "200", "--ridge", "1e-2", "--ridge", "1e-1")


def run(*arguments):
    return CliRunner().invoke(cli.main, [*map(str, arguments)], prog_name="tpc")


@pytest.mark.parametrize("limit", ["nngp", "ntk"])
def test_regression_equals_a_plain_solve_and_is_recorded(tmp_path, limit):
    result = run("regress", MLP, "--limit", limit, *SMALL, "--dtype", "float64", "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    data = load_data("digits", None, 200, np.float64)
    order = np.random.default_rng(0).permutation(200)
    x, y = data.train_x[order], data.train_y[order]
    kernel = tpc.compile(tpc.load(MLP), limit=limit)
    k, cross = kernel.kernel(x)[limit], kernel.kernel(data.test_x, x)[limit]
    for entry in found["ridges"]:
        ridge = entry["ridge"] * np.trace(k) / 200
        targets = np.eye(10)[y] - 0.1
        held = k[180:, :180] @ np.linalg.solve(k[:180, :180] + ridge * np.eye(180), targets[:180])
        assert entry["held_out_accuracy"] == np.mean(held.argmax(1) == y[180:])
        logits = cross @ np.linalg.solve(k + ridge * np.eye(200), targets)
        assert entry["test_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == data.test_y), abs=4e-3)
        assert entry["test_loss"] == pytest.approx(np.mean((logits - np.eye(10)[data.test_y] + 0.1) ** 2), rel=1e-3)
    best = max(found["ridges"], key=lambda e: e["held_out_accuracy"])
    assert found["chosen"]["held_out_accuracy"] == best["held_out_accuracy"]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["ridge"] for r in records[:-1]] == [1e-1, 1e-2]
    assert sum(r.get("chosen", False) for r in records) == 1
    assert (tmp_path / "run" / "program.py").read_text() == MLP.read_text()
    again = run("regress", MLP, "--limit", limit, *SMALL, "--out", tmp_path / "run")
    assert again.exit_code == 2
    assert "--overwrite" in again.output


def test_the_table_marks_the_chosen_ridge():
    result = run("regress", MLP, "--limit", "nngp", *SMALL)
    assert result.exit_code == 0, result.output
    assert "held-out accuracy" in result.output
    assert result.output.count("chosen") == 1
    assert "test accuracy" in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--limit", "pi"), 2, "the pi limit is trained, with tpc train"),
        (("--limit-train-size", "200"), 0, "ntk-limit of mlp on digits: 200 training samples"),
        (("--limit", "ntk", "--held-out", "1"), 2, "0<x<1"),
        (("--limit", "ntk", "--ridge", "-1"), 2, "x>=0"),
        (("--limit", "ntk", "--data", "mnist"), 2, "mnist"),
        (("--limit", "ntk", "--ridge", "0", "--limit-train-size", "300"), 0, "test accuracy"),
    ],
)
def test_mistakes_are_told(arguments, code, told):
    result = run("regress", MLP, *arguments)
    assert result.exit_code == code, result.output
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_matrix_that_does_not_fit_is_refused_with_a_size_that_does(monkeypatch):
    class Free:
        bytes, limit = 4_000_000_000, "free memory"

    monkeypatch.setattr(regress, "available", lambda: Free)
    require_room(20_000, 4)
    with pytest.raises(tpc.errors.UserError, match=r"50000 samples needs about 12\.1 GB.*--limit-train-size 27100"):
        require_room(50_000, 4)
    with pytest.raises(tpc.errors.UserError, match="--dtype float32"):
        require_room(25_000, 8)


def test_jobs_are_checked():
    with pytest.raises(tpc.errors.UsageError, match="a kernel limit, nngp or ntk, got 'pi'"):
        RegressJob("p.py", limit="pi")
    with pytest.raises(tpc.errors.UsageError, match="ridges"):
        RegressJob("p.py", ridges=())


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def test_every_cell_is_a_command_that_the_command_line_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    for quick in (False, True):
        for cell in table1.cells(quick, "data", seed=3):
            name, *arguments = cell.arguments
            command = cli.main.get_command(None, name)
            command.make_context(name, arguments)  # raises for anything unknown
            assert cell.command.startswith(f"tpc {name} programs/")
            assert "--seed 3" in cell.command
    assert {(c.row, c.column) for c in table1.cells(False, None)} == set(table1.PUBLISHED)


def test_cells_are_filled_once_and_failures_do_not_stop_the_others(tmp_path, monkeypatch):
    asked = []

    def answered(arguments):
        asked.append(arguments)
        text = " ".join(arguments)
        if "--parametrization pi" in text:
            return 1, "", "line\nerror: no room"
        if "regress" in text and "cifar10" in text:
            return 0, json.dumps({"chosen": {"test_accuracy": 0.5}}), ""
        return 0, json.dumps({"accuracy": 0.9, "interval_95": 0.01}), ""

    monkeypatch.setattr(table1, "_finished", answered)
    cells = table1.cells(True, None)
    said = []
    scores, failed = table1.fill(cells, tmp_path, 0, said.append)
    assert len(scores) == 8
    assert [(c.row, why) for c, why in failed] == [("finite π", "error: no room")] * 2
    assert {s.accuracy for s in scores if s.row in ("NNGP", "NTK") and s.column == "cifar10"} == {0.5}
    assert all(s.interval == 0.01 for s in scores if s.column == "omniglot")
    assert any("failed: error: no room" in line for line in said)
    before = len(asked)
    again, _ = table1.fill(cells, tmp_path, 0)
    assert len(asked) == before + 2  # only those that failed
    assert again == scores == table1.read(tmp_path)


def test_a_damaged_record_and_unknown_names_are_told(tmp_path):
    (tmp_path / table1.RESULTS).write_text("[{]")
    with pytest.raises(tpc.errors.DataError, match="is damaged"):
        table1.read(tmp_path)
    with pytest.raises(tpc.errors.UsageError, match="got 'SVM'"):
        table1.chosen(table1.cells(True, None), ["SVM"], [])


def test_dry_run_prints_the_commands(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = run("reproduce", "table1", "--quick", "--dry-run", "--row", "NTK", "--column", "cifar10")
    assert result.output.splitlines() == [
        "tpc regress programs/mlp.py --limit ntk --data cifar10 --limit-train-size 2000 --seed 0"
    ]
