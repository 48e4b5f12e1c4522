"""What several commands do: load a program, derive its limit, write a file, print a result for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tpc.cli.group import PRINTED

if TYPE_CHECKING:
    from tpc.compiler import Limit
    from tpc.program.program import Program

PROGRAMS = Path("programs")


def print_json(record: Any) -> None:
    """The result as one JSON object, and nothing else, on standard output."""
    click.get_current_context().meta[PRINTED] = True
    from tpc.runtime.files.json_text import dumps

    click.echo(dumps(record, indent=2))


def write_output(path: Path | None, text: str, say: bool = True) -> None:
    """Write `text` to a file in one step and say so, or print it."""
    if path is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    from tpc.runtime.files.whole import write_atomic

    write_atomic(path, text)
    if say:
        click.echo(f"wrote {path}")


def load_program(path: Path, function: str | None, settings: Iterable[tuple[str, Any]]) -> Program:
    """Trace the program of a command."""
    from tpc.program.load import load

    return load(path, function=function, **dict(settings))


def derive(path: Path, function: str | None, settings: Iterable[tuple[str, Any]], limit: str) -> Limit:
    """Trace the program of a command and take its limit."""
    from tpc.compiler import compile_program

    return compile_program(load_program(path, function, settings), limit=limit)


def default_program(name: str = "mlp.py") -> Path:
    """A program of the working directory."""
    program = PROGRAMS / name
    if not program.is_file():
        raise click.UsageError(
            f"no PROGRAM given, and the default {program} is not in {Path.cwd()}. Give the path of a "
            "program, or run the command where programs/ lies."
        )
    return program
