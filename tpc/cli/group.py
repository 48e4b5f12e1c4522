"""A group of commands: proposals for what is mistyped, errors as one paragraph, and as JSON where that is asked for."""

from __future__ import annotations

import errno
import io
import json
import signal
import sys
import traceback
from contextlib import suppress
from typing import IO, Any, NoReturn

import click

from tpc.errors import InternalError, UserError, did_you_mean, text_of
from tpc.runtime.files.output import open_standard_streams

DEBUG, JSON, PRINTED = "tpc.debug", "tpc.json", "tpc.printed"  # keys of a context's meta

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


class Commands(click.Group):
    """Suggests commands and options, and turns exceptions into one paragraph and an exit code."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        as_json = "--json" in args
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            if as_json and parent is None:
                _print_error(error.format_message(), type(error).__name__, error.exit_code)
            raise _plain(error) from None
        if parent is None:
            ctx.meta[JSON] = as_json
        return ctx

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"no command {args[0]!r}.{hint} The commands are {known}.", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except click.ClickException as given:
            error = _placed(ctx, given)
            _tell_json(ctx, error.format_message(), type(error).__name__, error.exit_code)
            raise _plain(error) from None
        except KeyboardInterrupt:
            _fail(ctx, "interrupted.", "KeyboardInterrupt", 128 + signal.SIGINT)
        except Exception as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            message, code = describe(error)
            _fail(ctx, message, type(error).__name__, code)


class _Plain(click.ClickException):
    """An error of the command line in the one style of all errors, with the exit code of the original."""

    def __init__(self, given: click.ClickException) -> None:
        message = given.format_message()
        ctx = given.ctx if isinstance(given, click.UsageError) else None
        super().__init__(message[:1].lower() + message[1:] if message[1:2].islower() else message)
        vars(self)["exit_code"] = given.exit_code
        self.help = "" if ctx is None else f"\n  Help: {ctx.command_path} --help"

    def show(self, file: IO[Any] | None = None) -> None:
        with suppress(OSError):  # nobody is there to read it
            click.echo(f"error: {self.message}{self.help}", file=file, err=file is None)


def _plain(error: click.ClickException) -> click.ClickException:
    return error if isinstance(error, _Plain) else _Plain(error)


def _fail(ctx: click.Context, message: str, kind: str, code: int) -> NoReturn:
    _tell_json(ctx, message, kind, code)
    with suppress(OSError):  # nobody is there to read it
        click.echo(f"error: {message}", err=True)
    ctx.exit(code)


def _tell_json(ctx: click.Context, message: str, kind: str, code: int) -> None:
    """Print the error for scripts, if they asked and standard output has no object yet."""
    if ctx.meta.get(JSON) and not ctx.meta.get(PRINTED):
        ctx.meta[PRINTED] = True
        _print_error(message, kind, code)


def _print_error(message: str, kind: str, code: int) -> None:
    with suppress(OSError):
        click.echo(json.dumps({"error": {"message": message, "type": kind, "exit_code": code}}, indent=2))


def _placed(ctx: click.Context, error: click.ClickException) -> click.ClickException:
    """The error; an option that this command lacks and others have is told by their names."""
    if not isinstance(error, click.NoSuchOption):
        return error
    option = error.option_name
    found = [name for name, c in _commands(ctx.find_root().command) if any(option in p.opts for p in c.params)]
    if not found:
        return error
    return click.UsageError(f"No such option {option!r} here; it is one of {', '.join(found)}.", error.ctx)


def _commands(command: click.Command, path: str = "tpc") -> list[tuple[str, click.Command]]:
    """All commands below a group, by what calls them."""
    if not isinstance(command, click.Group):
        return [(path, command)]
    return [found for name, c in command.commands.items() for found in _commands(c, f"{path} {name}")]


def describe(error: Exception) -> tuple[str, int]:
    """The paragraph and the exit code for an exception: 2 wrong usage, 1 anything that failed."""
    told = text_of(error)
    if isinstance(error, UserError):
        return told, error.exit_code
    if isinstance(error, InternalError):
        return told, 1
    if isinstance(error, MemoryError):
        asked = f" ({told})".replace(".)", ")") if told else ""
        return (
            f"out of memory{asked}. Choose --mode folded, --storage bfloat16, a smaller --rank, or fewer samples in a "
            "step (--batch-size; --tasks of few-shot tasks).",
            1,
        )
    if isinstance(error, OSError) and error.strerror:
        nameless = "standard output: " if error.errno in _UNWRITABLE else ""  # files are named where they are written
        place = f"{error.filename}: " if error.filename else nameless
        return f"{place}{error.strerror}.", 1
    if isinstance(error, OSError):
        return f"a file could not be read or written: {told}.", 1
    return (
        f"internal error: {type(error).__name__}: {told}. This is a bug in tpc; run the command again with "
        "--debug for the traceback and report it with the program.",
        1,
    )


def remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Callback of --debug."""
    if value:
        ctx.meta[DEBUG] = True


def printable() -> None:
    """Let a stream that cannot write a symbol write a question mark for it, and no file be taken for a stream."""
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")
