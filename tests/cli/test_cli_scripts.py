"""What scripts and shells rely on: one JSON object, errors too; plain text where there is no terminal; completion."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from tests.support.sabotage import kernel_scaled, limits_changed
from tpc.runtime.training.progress import Display, Pace

ROOT = Path(__file__).parents[2]
MLP = str(ROOT / "programs" / "mlp.py")
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3|4|9|10)[0-9]")
ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(cli.main, list(map(str, arguments)), prog_name="tpc", catch_exceptions=False)


FAILURES = {
    "wrong option of the command": (["train", "--epoch", "3", "--json"], "NoSuchOption", "--epochs", 2),
    "wrong command": (["trian", "--json"], "UsageError", "Did you mean 'train'?", 2),
    "wrong value": (["train", MLP, "--lr", "-1", "--json"], "BadParameter", "--lr", 2),
    "wrong choice": (["train", MLP, "--loss", "mes", "--json"], "BadParameter", "Did you mean 'mse'?", 2),
    "no program": (["compile", "no.py", "--json"], "UsageError", "expected a program file", 2),
    "no run": (["eval", "runs/x", "--json"], "UsageError", "is not a run directory", 2),
    "no data": (["train", MLP, "--data", "cifar10", "--data-dir", "no", "--json"], "DataError", "tpc data get", 1),
}


@pytest.mark.parametrize(("arguments", "kind", "told", "code"), FAILURES.values(), ids=FAILURES)
def test_an_error_is_json_too(arguments, kind, told, code):
    result = invoke(*arguments)
    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["exit_code"], result.exit_code) == (kind, code, code)
    assert told in error["message"]
    assert result.stderr.startswith("error: ")
    assert json.loads(invoke(*arguments).stdout)["error"] == error


@pytest.mark.parametrize(
    "arguments", [["train", "--epoch", "3"], ["trian"], ["compile"], ["kernel", "relu", "--at", "1"]]
)
def test_errors_have_one_style(arguments):
    result = invoke(*arguments)
    told = result.stderr.splitlines()
    assert told[0].startswith("error: ")
    assert told[0][7].islower()
    assert told[-1].startswith("  Help: tpc")
    assert "Usage" not in result.stderr


def test_without_json_standard_output_stays_empty():
    for arguments, *_ in FAILURES.values():
        assert invoke(*(a for a in arguments if a != "--json")).stdout == ""


def test_a_result_that_failed_is_the_only_object():
    quick = ("check", MLP, "--set", "hidden=1", "--widths", "16:64", "--steps", 0, "--rank", 4, "--json")
    unknown = invoke(*quick, "--seeds", 1)
    record = json.loads(unknown.stdout)
    assert unknown.exit_code == 3
    assert not record["ok"]
    assert record["verdict"] == "cannot tell"
    assert record["reasons"]
    assert re.fullmatch(r"\d+:\d+", record["add"]["widths"])
    assert record["add"]["seeds"] > 1
    right = invoke(*quick[:5], "128:2048", *quick[6:])
    assert right.exit_code == 0
    assert json.loads(right.stdout)["verdict"] == "right"
    assert "add" not in json.loads(right.stdout)
    with limits_changed(kernel_scaled(0, 1.2)):
        wrong = invoke(*quick)
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["verdict"] == "wrong"
    assert "error: finite networks do not approach the limit." in wrong.stderr
    bad = invoke("data", "verify", "cifar10", "--data-dir", "no", "--json")
    assert bad.exit_code == 1
    assert "error" in json.loads(bad.stdout) or not json.loads(bad.stdout)["ok"]


def test_compile_tells_scripts_what_the_summary_says(tmp_path):
    found = json.loads(invoke("compile", MLP, "--json").stdout)
    assert found["program"] == "mlp"
    assert found["limit"] == "pi"
    assert list(found["parameters"]) == ["embed", "embed.bias", "hidden1", "hidden1.bias", "readout", "readout.bias"]
    assert list(found["kernels"]) == ["V[relu, relu]", "V[relu, δ]", "V[step, step]"]
    assert found["stages"] == {}
    for text in (*found["parameters"].values(), *found["cost_of_a_step"]):
        assert text in invoke("compile", MLP).stdout
    emitted = json.loads(invoke("compile", MLP, "--json", "--emit", "update", "--emit", "c").stdout)["stages"]
    assert emitted["update"] == invoke("compile", MLP, "--emit", "update").stdout
    kept = json.loads(invoke("compile", MLP, "--json", "--emit", "update", "--out", "d", "--report", "r.html").stdout)
    assert kept["files"] == {"update": "d/update.txt"}
    assert kept["report"] == "r.html"
    assert Path("d/update.txt").read_text() == emitted["update"]
    kernel = json.loads(invoke("compile", MLP, "--limit", "ntk", "--json").stdout)
    assert "parameters" not in kernel


def test_reproduce_lists_its_commands_for_scripts(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = json.loads(invoke("reproduce", "table1", "--dry-run", "--json").stdout)
    plain = invoke("reproduce", "table1", "--dry-run").stdout.splitlines()
    assert [cell["command"] for cell in found] == plain
    assert {cell["row"] for cell in found} >= {"NNGP", "NTK"}


# --- terminals and pipes ---------------------------------------------------------------------------------------------


def on_a_terminal(*arguments, **environment):
    """What a command writes to a terminal of 60 columns."""
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", **environment}
    process = subprocess.Popen([sys.executable, str(ROOT / "cli.py"), *arguments], stdout=other, stderr=other, env=env)
    os.close(other)
    found = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not part:
            break
        found += part
    os.close(main)
    assert process.wait() == 0
    return found.decode()


def piped(*arguments, **environment):
    run = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(run, capture_output=True, text=True, env={**os.environ, **environment}, check=True)


QUICK = ("train", MLP, "--rank", "4", "--epochs", "1", "--limit-train-size", "64", "--no-report")


def test_a_terminal_gets_a_bar_and_colours_unless_it_wants_none():
    assert COLOUR.search(on_a_terminal(*QUICK, "--out", "a"))
    plain = on_a_terminal(*QUICK, "--out", "b", NO_COLOR="1")
    assert "test accuracy" in plain
    assert not COLOUR.search(plain)


def test_a_pipe_gets_neither_and_no_width():
    found = piped(*QUICK, "--out", "a", COLUMNS="20", TERM="xterm-256color")
    assert ESCAPE not in found.stdout + found.stderr
    assert max(map(len, found.stdout.splitlines())) > 80
    table = piped("eval", "a", COLUMNS="20").stdout
    assert ESCAPE not in table
    assert table.count("\n") < 20  # one line per class
    assert piped("data", "ls", COLUMNS="20").stdout == piped("data", "ls", COLUMNS="200").stdout


def test_an_encoding_without_symbols_is_no_error():
    run = [sys.executable, str(ROOT / "cli.py"), "kernel", "relu"]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    found = subprocess.run(run, capture_output=True, env=env, check=True).stdout.decode("latin-1")
    assert "E ?(u)?(v)" in found
    assert "·(? - arccos(" in found


# --- completion ------------------------------------------------------------------------------------------------------


def offered(*words):
    """What is offered for the last of the words, as the shell hears it."""
    env = {"_TPC_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(cli.main, [], prog_name="tpc", env=env)
    return [line.partition(",")[2] for line in result.output.splitlines() if "," in line]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "programs").mkdir()
    for name in ("mlp", "maml"):
        (tmp_path / "programs" / f"{name}.py").write_text((ROOT / "programs" / f"{name}.py").read_text())
    (tmp_path / "own.py").write_text("raise SystemExit('completion must not run a program')\n")
    (tmp_path / "runs" / "mlp-digits-1").mkdir(parents=True)
    (tmp_path / "runs" / "mlp-digits-1" / "config.toml").write_text("")
    (tmp_path / "runs" / "other").mkdir()


def test_commands_options_and_choices_are_offered():
    assert offered("tpc", "re") == ["regress", "reproduce"]
    assert offered("tpc", "train", "--lr-") == ["--lr-schedule", "--lr-mult", "--lr-drop"]
    assert offered("tpc", "train", "--backend", "n") == ["numpy", "native"]
    assert offered("tpc", "regress", "x.py", "--data", "") == ["digits", "cifar10", "omniglot"]
    assert offered("tpc", "data", "get", "c") == ["cifar10"]
    assert offered("tpc", "compile", "x.py", "--emit", "la") == ["latex"]
    assert offered("tpc", "completion", "") == ["bash", "zsh", "fish"]


def test_programs_settings_and_runs_are_offered(files):
    assert offered("tpc", "train", "")[1:] == ["own.py", "programs/maml.py", "programs/mlp.py"]
    assert offered("tpc", "train", "ml")[1:] == ["programs/mlp.py"]
    assert offered("tpc", "train", "programs/ma")[1:] == ["programs/maml.py"]
    assert offered("tpc", "train", "programs/mlp.py", "--set", "hi") == ["hidden=2"]
    assert offered("tpc", "train", "--set", "cl") == ["classes=10"]
    assert "order=2" in offered("tpc", "fewshot", "--set", "")
    assert offered("tpc", "compile", "own.py", "--set", "") == []
    assert offered("tpc", "compile", "missing.py", "--set", "") == []
    assert offered("tpc", "eval", "runs/m")[1:] == ["runs/mlp-digits-1"]
    assert offered("tpc", "train", "--resume", "")[1:] == ["runs/mlp-digits-1"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_tpc(shell):
    text = invoke("completion", shell).stdout
    assert f"_TPC_COMPLETE={shell}_complete" in text
    assert "tpc completion" in text.splitlines()[-1]
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "Did you mean 'bash'?" in invoke("completion", "bsh").stderr


def test_long_work_without_a_bar_says_what_it_does_and_what_is_left(monkeypatch):
    clock = iter([0.0, 5.0, 20.0, 25.0, 40.0])
    monkeypatch.setattr("tpc.runtime.training.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    with Display(10, "check", out) as display:
        pace = Pace(display, has_bar=False)
        for part in (0.1, 0.25, 0.5, 0.8):
            pace.told(part, "networks of width 128")
    assert out.getvalue().splitlines() == [
        "networks of width 128: 25% done, about 1 min 0 s left",
        "networks of width 128: 80% done, about 10.0 s left",
    ]
