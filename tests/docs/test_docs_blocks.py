"""Every block of the documents does what it shows; rewrite the outputs with --update-golden."""

import math
import shlex
import shutil

import click
import pytest

import cli
from tests.support.docs_blocks import (
    DOCUMENTS,
    IMAGES,
    LANGUAGES,
    ROOT,
    Block,
    Sandbox,
    agrees,
    blocks,
    commands,
    rewritten,
)

IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.fixture
def sandbox(tmp_path, monkeypatch, request):
    shutil.copytree(ROOT / "programs", tmp_path / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / IMAGES).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TPC_DATA_DIR", raising=False)
    monkeypatch.setattr("tpc.runtime.training.progress.Pace.SECONDS", math.inf)  # how busy the machine is says nothing
    return Sandbox(tmp_path, request.node.callspec.id)


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_blocks_print_what_the_document_shows(document, sandbox, update_golden):
    text = document.read_text(encoding="utf-8")
    differences = sandbox.run(blocks(text))
    made = sorted((sandbox.directory / IMAGES).glob("*")) if (sandbox.directory / IMAGES).is_dir() else []
    if update_golden:
        document.write_text(rewritten(text, differences), encoding="utf-8")
        for image in made:
            shutil.copyfile(image, ROOT / IMAGES / image.name)
        return
    for d in differences:
        assert "\n".join(d.printed) == "\n".join(d.shown).rstrip(), f"{document.name}:{d.block.start}: {d.what}"
    for image in made:
        stored = (ROOT / IMAGES / image.name).read_bytes()
        assert stored == image.read_bytes(), f"{image.name} is not what its command draws; run with --update-golden"


def test_every_image_is_drawn_by_a_command_of_a_document():
    shown = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    images = sorted(path.name for path in (ROOT / IMAGES).iterdir())
    assert "mlp.svg" in images
    assert [name for name in images if f" -o {IMAGES}/{name}" not in shown] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_every_block_has_a_language_that_says_how_it_is_checked(document):
    found = blocks(document.read_text(encoding="utf-8"))
    assert [f"line {b.start}: {b.language!r}" for b in found if b.language not in LANGUAGES] == []
    for b in found:
        if b.language == "console":
            assert b.lines[0].startswith("$ "), f"{document.name}:{b.start}"


def longer_commands():
    for document in DOCUMENTS:
        for b in blocks(document.read_text(encoding="utf-8")):
            if b.language == "sh":
                text = "\n".join(b.lines).replace("\\\n", " ")
                for line in text.splitlines():
                    if words := shlex.split(line, comments=True):
                        yield f"{document.relative_to(ROOT)}:{b.start}", words


@pytest.mark.parametrize(("place", "words"), list(longer_commands()))
def test_a_command_that_is_not_run_is_well_formed(place, words):
    while "=" in words[0]:  # VARIABLE=value in front of a command
        words = words[1:]
    program, *arguments = words
    if program == "tpc":
        _parse(cli.main, "tpc", arguments)
    elif program == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(f"\n{target}:" in targets for target in arguments), place
    else:
        assert program in ("cd", "git", ".venv/bin/python", ".venv/bin/ruff", ".venv/bin/mypy"), place
        paths = [a for a in arguments if a.split("/")[0] in ("tests", "programs", "docs", "tpc")]
        assert all((ROOT / path).exists() for path in paths), place


def _parse(command, name, arguments):
    """Raise click.UsageError unless the arguments are ones the command takes."""
    while isinstance(command, click.Group):
        name, *arguments = arguments
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(name, list(arguments)).close()


def test_blocks_are_found_with_their_lines():
    text = "a\n```python\nx = 1\n```\n\n```text\n1\n```\n````text\n```\n````\n"
    found = blocks(text)
    assert found == [Block("python", ("x = 1",), 2), Block("text", ("1",), 6), Block("text", ("```",), 9)]


def test_a_console_block_is_read_as_commands_with_outputs():
    block = Block("console", ("$ a \\", "    b", "one", "$ c"), 1)
    assert commands(block) == [("a \\\n    b", ["one"]), ("c", [])]


@pytest.mark.parametrize(
    ("command", "shown", "printed", "same"),
    [
        ("tpc compile a", "1.00", "1.01", False),
        ("tpc train a", "loss 1.00  9.9 s", "loss 1.01  1 min 10 s", True),
        ("tpc train a", "loss 1.00", "loss 1.20", False),
        ("tpc train a", "loss 1.00", "gain 1.00", False),
        ("tpc train a", "atoms 100", "atoms 101", False),
        ("tpc check a", "step  0.40", "step 0.41", True),
    ],
)
def test_measured_figures_may_differ_in_the_last_digits(command, shown, printed, same):
    assert agrees(command, (shown,), (printed,)) is same


def test_a_wrong_output_is_found_and_rewritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "```python\nprint(6 * 7)\n```\n\n```text\n41\n```\n```console\n$ echo a | tr a b\nb\n$ echo c\nd\n```\n"
    differences = Sandbox(tmp_path, "example").run(blocks(text))
    assert [d.printed for d in differences] == [("42",), ("$ echo a | tr a b", "b", "$ echo c", "c")]
    assert Sandbox(tmp_path, "example").run(blocks(rewritten(text, differences))) == []
