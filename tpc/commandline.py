"""What the commands in cli.py share: parameter types, suggestions, and errors as one paragraph."""

from __future__ import annotations

import difflib
import json
import math
import os
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tpc.errors import InternalError, UserError

if TYPE_CHECKING:
    from tpc.compiler import Limit
    from tpc.program.program import Program

PROGRAMS = Path("programs")
_DEBUG = "tpc.debug"


class Commands(click.Group):
    """A group that suggests commands and turns exceptions into one paragraph and an exit code."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"no command {args[0]!r}.{hint} The commands are {known}.", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("error: interrupted.", err=True)
            ctx.exit(1)
        except Exception as error:
            if ctx.meta.get(_DEBUG):
                traceback.print_exc()
            message, code = describe(error)
            click.echo(f"error: {message}", err=True)
            ctx.exit(code)


def describe(error: Exception) -> tuple[str, int]:
    """The paragraph and the exit code for an exception: 2 wrong usage, 1 anything that failed."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, InternalError):
        return str(error), 1
    if isinstance(error, MemoryError):
        asked = f" ({error})".replace(".)", ")") if str(error) else ""
        return (
            f"out of memory{asked}. Choose --mode folded, --storage bfloat16, a smaller --rank, or fewer samples in a "
            "step (--batch-size; --tasks of few-shot tasks).",
            1,
        )
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}.", 1
    if isinstance(error, OSError):
        return f"a file could not be read or written: {error}.", 1
    return (
        f"internal error: {type(error).__name__}: {error}. This is a bug in tpc; run the command again with "
        "--debug for the traceback and report it with the program.",
        1,
    )


class Available(click.Choice[str]):
    """A choice of which later versions have more: what is not there is told by its name."""

    def __init__(self, what: str, choices: Iterable[str], unfit: Mapping[str, str] | None = None) -> None:
        super().__init__(tuple(choices))
        self.what = what
        self.unfit = unfit or {}  # what is there, but not for this command, and why

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            reason = self.unfit.get(value, "is not in this version")
            raise click.UsageError(f"the {value} {self.what} {reason}; available: {', '.join(self.choices)}.", ctx)
        return str(value)


class FiniteRange(click.FloatRange):
    """A range of floats without nan and the infinities."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value}.", param, ctx)
        return number


class OutputFile(click.Path):
    """A file to write, in a directory that exists, with one of the endings given (any when none is)."""

    def __init__(self, *endings: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self.endings and path.suffix.lower() not in self.endings:
            self.fail(f"expected a file ending in {', '.join(self.endings)}, got {path}.", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"cannot write {path}: there is no directory {path.parent}; make it first.", param, ctx)
        return path


def remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Callback of --debug."""
    if value:
        ctx.meta[_DEBUG] = True


def parse_value(text: str) -> int | float | bool | str:
    """'3' → 3, '0.5' → 0.5, 'true' → True, anything else stays text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def key_value(text: str | tuple[str, Any]) -> tuple[str, Any]:
    """'hidden=3' → ('hidden', 3)."""
    if isinstance(text, tuple):
        return text
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise click.BadParameter(f"{text!r} is not of the form name=value.")
    return key.strip(), parse_value(value.strip())


def multiplier(text: str | tuple[str, Any]) -> tuple[str, float]:
    """'embed=0.1' → ('embed', 0.1)."""
    key, number = key_value(text)
    if isinstance(number, bool | str) or not 0 <= number < float("inf"):
        raise click.BadParameter(
            f"{text!r} is not of the form name=number, such as embed=0.1, with a finite number from 0 on."
        )
    return key, float(number)


def distinct(
    ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> tuple[tuple[str, Any], ...]:
    """Callback of options that give one value per name."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise click.BadParameter(f"{name} is given {names.count(name)} times; give it once.", ctx, param)
    return pairs


def drop(text: str | tuple[int, float]) -> tuple[int, float]:
    """'40:0.15' → (40, 0.15)."""
    if isinstance(text, tuple):
        return text
    from tpc.tasks.entries import parse_drop

    try:
        return parse_drop(text)
    except UserError as error:
        raise click.BadParameter(str(error)) from error


def point(text: str) -> tuple[float, float, float]:
    """'1,2,0.5' → (1.0, 2.0, 0.5)."""
    try:
        p, q, c = (float(part) for part in text.split(","))
        if not all(map(math.isfinite, (p, q, c))):
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{text!r} is not three numbers P,Q,C such as 1,2,0.5.") from None
    return p, q, c


def powers_of_two(text: str) -> list[int]:
    """'128:512' → [128, 256, 512]."""
    low, _, high = text.partition(":")
    if low.isdecimal() and high.isdecimal():
        found = [1 << k for k in range(1, 24) if int(low) <= 1 << k <= int(high)]
        if len(found) > 1:
            return found
    raise click.BadParameter(f"{text!r} is not LOW:HIGH with two or more powers of two between; try 128:4096.")


def print_json(record: Any) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(record, indent=2, default=float))


def write_output(path: Path | None, text: str) -> None:
    """Write `text` to a file in one step and say so, or print it."""
    if path is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    from tpc.runtime.checkpoint import write_atomic

    write_atomic(path, text)
    click.echo(f"wrote {path}")


def load_program(path: Path, function: str | None, settings: Iterable[tuple[str, Any]]) -> Program:
    """Trace the program of a command."""
    import tpc

    return tpc.load(path, function=function, **dict(settings))


def derive(path: Path, function: str | None, settings: Iterable[tuple[str, Any]], limit: str) -> Limit:
    """Trace the program of a command and take its limit."""
    import tpc

    return tpc.compile(load_program(path, function, settings), limit=limit)


def default_program(name: str = "mlp.py") -> Path:
    """A program of the working directory."""
    program = PROGRAMS / name
    if not program.is_file():
        raise click.UsageError(
            f"no PROGRAM given, and the default {program} is not in {Path.cwd()}. Give the path of a "
            "program, or run the command where programs/ lies."
        )
    return program
