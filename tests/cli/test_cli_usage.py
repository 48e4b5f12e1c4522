"""Wrong usage: one clear paragraph, exit code 2 or 1, no traceback, nothing written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli
from tpc.cli.data import data
from tpc.cli.group import describe
from tpc.cli.types import parse_value
from tpc.errors import InternalError, UsageError

ROOT = Path(__file__).parents[2]
MLP = str(ROOT / "programs" / "mlp.py")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        result = CliRunner().invoke(cli.main, arguments, prog_name="tpc", catch_exceptions=False)
        assert "Traceback" not in result.output
        return result

    return call


def test_every_command_has_help_with_an_example(run):
    commands = [*cli.main.commands.items(), *((f"data {n}", c) for n, c in data.commands.items())]
    for name, command in commands:
        result = run(*name.split(), "--help")
        assert result.exit_code == 0
        assert "Example" in result.output, name
        assert f"tpc {name}" in result.output, name
        assert command.help


MISTAKES = {
    "mistyped command": (["trian"], "Did you mean 'train'?", 2),
    "mistyped subcommand": (["data", "gte"], "Did you mean 'get'?", 2),
    "mistyped option": (["train", "--epoch", "3"], "--epochs", 2),
    "option of another command": (["compile", MLP, "--epochs", "3"], "it is one of tpc train, tpc fewshot.", 2),
    "mistyped parameter": (["train", MLP, "--lr-mult", "embde=2"], "Did you mean 'embed'?", 2),
    "mistyped choice": (["train", MLP, "--lr-schedule", "cosin"], "Did you mean 'cosine'?", 2),
    "mistyped data set": (["train", MLP, "--data", "cifar"], "Did you mean 'cifar10'?", 2),
    "mistyped data set to get": (["data", "get", "omniglott"], "Did you mean 'omniglot'?", 2),
    "mistyped backend": (["train", MLP, "--backend", "natve"], "Did you mean 'native'?", 2),
    "mistyped init": (["train", MLP, "--init", "papr"], "Did you mean 'paper'?", 2),
    "mistyped init of a network": (["train", MLP, "--width", "9", "--init", "zero_readuot"], "'zero_readout'?", 2),
    "mistyped stage": (["compile", MLP, "--emit", "upadte"], "Did you mean 'update'?", 2),
    "mistyped program": (["compile", MLP.replace("mlp", "mpl")], f"Did you mean {MLP!r}?", 2),
    "mistyped function": (["compile", MLP, "--function", "mpl"], "Did you mean 'mlp'?", 2),
    "mistyped nonlinearity": (["kernel", "rleu"], "did you mean relu?", 2),
    "no default program": (["train"], "programs/mlp.py is not in", 2),
    "no such program": (["compile", "nothing.py"], "nothing.py", 2),
    "unknown stage": (["compile", MLP, "--emit", "kernel"], "kernels", 2),
    "out without emit": (["compile", MLP, "--out", "d"], "--out needs at least one --emit", 2),
    "setting without value": (
        ["compile", MLP, "--set", "hidden"],
        "'hidden' is not of the form name=value",
        2,
    ),
    "unknown setting": (["compile", MLP, "--set", "hiden=3"], "Did you mean 'hidden'?", 2),
    "setting of another type": (["compile", MLP, "--set", "hidden=many"], "expects int", 2),
    "multiplier that is no number": (
        ["train", MLP, "--lr-mult", "embed=x"],
        "not of the form name=number",
        2,
    ),
    "malformed drop": (["train", MLP, "--lr-drop", "3"], "'3' is not EPOCH:FACTOR", 2),
    "drop to zero": (["train", MLP, "--lr-drop", "3:0"], "is not EPOCH:FACTOR", 2),
    "rate that is no number": (["train", MLP, "--lr", "nan"], "expected a finite number, got nan", 2),
    "infinite rate": (["train", MLP, "--lr", "inf"], "expected a finite number, got inf", 2),
    "infinite clip": (["train", MLP, "--clip", "inf"], "--clip", 2),
    "decay that is no number": (["train", MLP, "--weight-decay", "nan"], "--weight-decay", 2),
    "momentum that is no number": (["train", MLP, "--momentum", "nan"], "--momentum", 2),
    "multiplier below zero": (["train", MLP, "--lr-mult", "embed=-1"], "from 0 on", 2),
    "multiplier given twice": (
        ["train", MLP, "--lr-mult", "embed=1", "--lr-mult", "embed=2"],
        "embed is given 2 times",
        2,
    ),
    "setting that makes the network zero": (["train", MLP, "--set", "input_scale=0"], "zero", 2),
    "no epochs": (["train", MLP, "--epochs", "0"], "--epochs", 2),
    "drop of a clip that is none": (["train", MLP, "--clip-drop", "1:0.5"], "needs clip (--clip)", 2),
    "drop after the end": (["train", MLP, "--lr-drop", "10:0.5"], "never takes effect", 2),
    "limit of another version": (
        ["compile", MLP, "--limit", "mu"],
        "the mu limit is not in this version; available: pi, nngp, ntk",
        2,
    ),
    "limit that is not trained": (
        ["train", MLP, "--limit", "ntk"],
        "the ntk limit is a kernel, which is not trained; available: pi",
        2,
    ),
    "mode of another version": (["train", MLP, "--mode", "sparse"], "available: exact, folded", 2),
    "backend of another version": (["train", MLP, "--backend", "torch"], "available: numpy, native, cupy", 2),
    "stage of another version": (["compile", MLP, "--emit", "ptx"], "the ptx stage is not in this version", 2),
    "rate of a check that is no number": (["check", MLP, "--lr", "nan"], "expected a finite number", 2),
    "plot of an unknown kind": (["check", MLP, "--plot", "a.xyz"], "ending in .svg, .png, .pdf, got a.xyz", 2),
    "plot into no directory": (["kernel", "relu", "--plot", "no/a.svg"], "there is no directory no", 2),
    "graph of an unknown kind": (["graph", MLP, "-o", "a.png"], "ending in .svg, .dot, .html, .json", 2),
    "graph of two kinds": (["graph", MLP, "-o", "a.svg", "--format", "dot"], "name it a.dot", 2),
    "graph into no directory": (["graph", MLP, "-o", "no/a.svg"], "there is no directory no", 2),
    "kernel at what is no number": (["kernel", "relu", "--at", "nan,1,1"], "not three numbers", 2),
    "negative rate": (["train", MLP, "--lr", "-1"], "--lr", 2),
    "unknown data set": (["train", MLP, "--data", "mnist"], "digits, cifar10", 2),
    "missing data set": (["train", MLP, "--data", "cifar10", "--data-dir", "no"], "tpc data get cifar10", 1),
    "resume of nothing": (["train", "--resume", "runs/x"], "is not a run directory", 2),
    "eval of nothing": (["eval", "runs/x"], "is not a run directory", 2),
    "config that is no TOML": (["train", "--config", MLP], "not valid TOML", 2),
    "kernel at two numbers": (["kernel", "relu", "--at", "1,2"], "not three numbers", 2),
    "widths without a range": (["check", MLP, "--widths", "128"], "--widths", 2),
    "verify of what is not there": (["data", "verify", "cifar10", "--data-dir", "no"], "cifar10", 1),
    "get of embedded data": (["data", "get", "digits"], "needs no download", 2),
}


@pytest.mark.parametrize(("arguments", "told", "code"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told(run, arguments, told, code):
    result = run(*arguments)
    assert told in result.output
    assert result.exit_code == code
    assert list(Path.cwd().iterdir()) == []


def test_a_mistyped_run_is_told(run):
    Path("runs/mlp-digits-1").mkdir(parents=True)
    Path("runs/mlp-digits-1/config.toml").write_text("")
    assert "Did you mean 'runs/mlp-digits-1'?" in run("eval", "runs/mlp-digit-1").output


def examples():
    """Every command in a help text, by where it stands."""
    for name, command in [*cli.main.commands.items(), *((f"data {n}", c) for n, c in data.commands.items())]:
        text = (command.help or "").partition("Example")[2].replace("\\\n", " ")
        yield from ((name, line.strip()) for line in text.splitlines() if line.strip().startswith("tpc "))


@pytest.mark.parametrize(("name", "line"), [*examples(), *(("", x) for x in ("tpc train", "tpc kernel relu"))])
def test_every_example_is_well_formed(name, line, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(re.split(r" [|>] ", line)[0])[1:]
    if "--config" in words:
        at = words.index("--config") + 1
        (tmp_path / "config.toml").write_text(f"program = {MLP!r}\n")
        words[at] = str(tmp_path / "config.toml")
    ctx = cli.main.make_context("tpc", words, resilient_parsing=False)
    command: click.Command = cli.main
    rest = [*ctx._protected_args, *ctx.args]
    while isinstance(command, click.Group):
        command = command.commands[rest[0]]
        ctx = command.make_context(rest[0], rest[1:], parent=ctx)
        rest = [*ctx._protected_args, *ctx.args]


def test_unknown_config_entry_is_named(run):
    Path("c.toml").write_text('program = "p.py"\nlearning_rate = 1.0\n')
    result = run("train", "--config", "c.toml")
    assert "unknown entry 'learning_rate'" in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("lr_mult = 3", "lr_mult to be a table"),
        ("lr_drop = [3]", "3 is not EPOCH:FACTOR"),
        ("batch_size = 0", "batch_size to be a whole number from 1 on, got 0"),
        ("limit = 'ntk'", "the ntk limit is a kernel, which is not trained"),
    ],
)
def test_a_wrong_config_entry_is_told(run, entry, told):
    Path("c.toml").write_text(f"program = {MLP!r}\n{entry}\n")
    result = run("train", "--config", "c.toml")
    assert told in result.output
    assert "c.toml" in result.output
    assert result.exit_code == 2
    assert [path.name for path in Path.cwd().iterdir()] == ["c.toml"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2", -2),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("relu", "relu"),
        ("", ""),
    ],
)
def test_settings_are_read_by_their_look(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_errors_have_a_paragraph_and_an_exit_code():
    assert describe(UsageError("give n")) == ("give n", 2)
    assert describe(InternalError("x"))[1] == 1
    assert "--debug" in describe(ZeroDivisionError("division by zero"))[0]
    assert "out of memory" in describe(MemoryError())[0]
    assert describe(OSError("10 requested and 0 written")) == (
        "a file could not be read or written: 10 requested and 0 written.",
        1,
    )
    assert describe(PermissionError(13, "Permission denied", "/x")) == ("/x: Permission denied.", 1)


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class SpeechlessUserError(UsageError, Speechless):
    __str__ = Speechless.__str__


def test_an_exception_whose_text_fails_is_told_all_the_same(run, tmp_path):
    told = "its text cannot be had: __str__ raised RuntimeError"
    assert describe(Speechless())[0].startswith(f"internal error: Speechless: {told}. This is a bug in tpc")
    assert describe(SpeechlessUserError()) == (told, 2)
    for kind in ("MemoryError", "OSError", "Exception", "SystemExit"):
        text = f"class Speechless({kind}):\n    def __str__(self):\n        raise RuntimeError\n"
        (tmp_path / "p.py").write_text(f"{text}\n\ndef f(x):\n    raise Speechless\n")
        for command in (("compile", "p.py"), ("train", "p.py")):
            result = run(*command)
            assert result.exit_code == 2
            assert f"p.py:7: Speechless: {told}" in result.output
        (tmp_path / "p.py").write_text(f"{text}\n\nraise Speechless\n")
        assert f"p.py:6: Speechless: {told}" in run("compile", "p.py").output


def test_debug_shows_the_traceback(run, monkeypatch, capsys):
    process = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "eval", "nothing", "--debug"], capture_output=True, text=True
    )
    assert "Traceback" in process.stderr
    assert "error: nothing is not a run directory" in process.stderr
    assert process.returncode == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['tpc', '--help']\n"
        "import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'sympy', 'matplotlib', 'networkx', 'rich', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr


def test_data_ls_tells_what_is_there(run):
    result = run("data", "ls", "--data-dir", "no")
    assert result.exit_code == 0
    assert "digits" in result.output
    assert run("data", "ls", "--json").output.lstrip().startswith("{")


def test_data_get_tells_an_unreachable_server(run):
    result = run("data", "get", "cifar10", "--data-dir", "d", "--url", "http://127.0.0.1:9/x.tar.gz")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.output


def test_data_verify_of_the_embedded_digits(run):
    result = run("data", "verify", "digits")
    assert result.exit_code == 0
    assert result.output.startswith("ok")
