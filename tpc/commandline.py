"""What the commands in cli.py share: parameter types, suggestions, and errors as one paragraph."""

from __future__ import annotations

import difflib
import json
import traceback
from typing import Any

import click

from tpc.errors import InternalError, UserError

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
        return "out of memory. Lower --rank or train on fewer samples (--limit-train-size).", 1
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}.", 1
    return (
        f"internal error: {type(error).__name__}: {error}. This is a bug in tpc; run the command again with "
        "--debug for the traceback and report it with the program.",
        1,
    )


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


class KeyValue(click.ParamType):
    """key=value with the value read as int, float, bool or text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not of the form name=value.", param, ctx)
        return key.strip(), parse_value(text.strip())


class Multiplier(KeyValue):
    """name=number."""

    name = "name=number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        key, number = super().convert(value, param, ctx)
        if isinstance(number, bool | str) or not abs(number) < float("inf"):
            self.fail(f"{value!r} is not of the form name=number, such as embed=0.1.", param, ctx)
        return key, float(number)


class Drop(click.ParamType):
    """EPOCH:FACTOR."""

    name = "epoch:factor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        from tpc.tasks.classify import parse_drop

        try:
            return parse_drop(str(value))
        except UserError as error:
            self.fail(str(error), param, ctx)


def print_json(record: Any) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(record, indent=2, default=float))
