"""Fenced blocks of a Markdown document, and a sandbox that runs them as a reader would.

console   `$ command` lines, each followed by its output: run, and the output compared
python    executed, one namespace per document; a first line `# name.py` also saves it under that name;
          a `text` block right after it is what it prints
sh        too long or too far-reaching for a test: parsed, so that every command and option exists
text      anything else
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("console", "python", "sh", "text")
IMAGES = Path("docs") / "images"
MEASURED = ("train", "eval", "check", "regress")  # commands whose figures depend on the machine in the last digits
_NUMBER = re.compile(r"(\d+\.\d+)")
_TIME = re.compile(r"\b(\d+ h )?(\d+ min )?\d+(\.\d+)? s\b|at most about [\d.]+ GB")  # and memory: of the machine


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and lines; `start` is the index of the first line after the fence."""

    language: str
    lines: tuple[str, ...]
    start: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        fence = re.match(r"(`{3,})(\w*)", lines[i])
        i += 1
        if fence is None:
            continue
        start = i
        while i < len(lines) and lines[i].rstrip() != fence[1]:
            i += 1
        found.append(Block(fence[2], tuple(lines[start:i]), start))
        i += 1
    return found


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """(command, its output) pairs of a console block; a command goes on after a backslash."""
    found: list[tuple[str, list[str]]] = []
    going_on = False
    for line in block.lines:
        if line.startswith("$ ") or going_on:
            text = line if going_on else line[2:]
            found = [*found[:-1], (found[-1][0] + "\n" + text, [])] if going_on else [*found, (text, [])]
            going_on = line.endswith("\\")
        else:
            found[-1][1].append(line)
    return found


@dataclass(frozen=True)
class Difference:
    """A block whose output is not what the document shows."""

    block: Block
    what: str
    shown: tuple[str, ...]
    printed: tuple[str, ...]


class Sandbox:
    """A working directory with a copy of programs/, in which the blocks of one document run in order."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.namespace: dict[str, object] = {"__name__": name}

    def run(self, found: list[Block]) -> list[Difference]:
        """Run all console and python blocks; returns those that print something else than shown."""
        differences = []
        for k, block in enumerate(found):
            if block.language == "console":
                differences += self._console(block)
            elif block.language == "python":
                printed = self._python(block)
                after = found[k + 1] if k + 1 < len(found) else None
                if after is not None and after.language == "text" and after.start == _end(block) + 3:
                    if printed != _trimmed(after.lines):
                        differences.append(Difference(after, "the python block above", after.lines, printed))
                elif printed:
                    raise AssertionError(f"{self.name}:{block.start}: prints what the document does not show")
        return differences

    def _console(self, block: Block) -> list[Difference]:
        shown: list[str] = []
        same = True
        for command, output in commands(block):
            printed = self._printed(command, block)
            equal = agrees(command, _trimmed(output), printed)
            same = same and equal
            shown += [f"$ {command}", *(output if equal else printed)]
        lines = tuple("\n".join(shown).splitlines())
        return [] if same else [Difference(block, "console", block.lines, lines)]

    def _printed(self, command: str, block: Block) -> tuple[str, ...]:
        program, rest = _split(command.replace("\\\n", " "))
        if program.startswith("tpc "):
            result = CliRunner().invoke(cli.main, shlex.split(program)[1:], prog_name="tpc")
            text, code = result.output, result.exit_code
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            if rest:
                text = self._shell(rest, text)[0]
        else:
            text, code = self._shell(program + rest)
        told = any(line.lower().startswith(("error: ", "cannot tell: ")) for line in text.splitlines())
        assert (code != 0) == told, f"{self.name}:{block.start}: {command} ended with exit code {code}:\n{text}"
        return _trimmed(text.splitlines())

    def _shell(self, command: str, given: str = "") -> tuple[str, int]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            ["bash", "-c", command],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.directory,
            env=environment,
        )
        return done.stdout, done.returncode

    def _python(self, block: Block) -> tuple[str, ...]:
        source = "\n".join(block.lines) + "\n"
        saved = re.match(r"# (\w+\.py)$", block.lines[0])
        file = self.name
        if saved:
            file = saved[1]
            (self.directory / file).write_text(source, encoding="utf-8")
        out = io.StringIO()
        place = source if saved else "\n" * block.start + source  # tracebacks show the line of the document
        with contextlib.redirect_stdout(out):
            exec(compile(place, file, "exec"), self.namespace)  # the project's own documents
        return _trimmed(out.getvalue().splitlines())


def _end(block: Block) -> int:
    return block.start + len(block.lines)


def _split(command: str) -> tuple[str, str]:
    """A command and what its output is piped or written to, as a shell command that reads it."""
    cut = re.search(r"""^((?:[^'"|>]|'[^']*'|"[^"]*")*?) ([|>]) (.*)$""", command, re.DOTALL)
    if cut is None or not command.startswith("tpc "):
        return command, ""
    return cut[1], cut[3] if cut[2] == "|" else f"cat > {cut[3]}"


def _trimmed(lines: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Without trailing blanks, and without blank lines at the end."""
    return tuple("\n".join(line.rstrip() for line in lines).rstrip().splitlines())


def agrees(command: str, shown: tuple[str, ...], printed: tuple[str, ...]) -> bool:
    """Equal; for measured commands up to times, alignment and small changes of decimal numbers."""
    words = command.split()
    if shown == printed or len(words) < 2 or words[0] != "tpc" or words[1] not in MEASURED:
        return shown == printed
    if len(shown) != len(printed):
        return False
    return all(_close(a, b) for a, b in zip(shown, printed, strict=True))


def _close(shown: str, printed: str) -> bool:
    a, b = (_NUMBER.split(_TIME.sub("#", " ".join(line.split()))) for line in (shown, printed))
    if len(a) != len(b) or a[::2] != b[::2]:
        return False
    return all(abs(float(x) - float(y)) <= 0.02 + 0.05 * abs(float(x)) for x, y in zip(a[1::2], b[1::2], strict=True))


def rewritten(text: str, differences: list[Difference]) -> str:
    """The document with the outputs replaced by what was printed."""
    lines = text.splitlines()
    for d in sorted(differences, key=lambda d: -d.block.start):
        lines[d.block.start : _end(d.block)] = d.printed
    return "\n".join(lines) + "\n"
