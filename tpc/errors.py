"""Two kinds of error: the user's mistake (`UserError` and its kinds) and our bug (`InternalError`)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLine:
    """A place in the user's program."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class TpcError(Exception):
    """Base of everything tpc raises on purpose."""


class UserError(TpcError):
    """Something the user can mend; the message says what was expected, what came, and the fix."""

    exit_code = 1


class UsageError(UserError):
    """A wrong option, name or combination on the command line or in a call; exit code 2."""

    exit_code = 2


class ProgramError(UserError):
    """A mistake in a network program, with the line it was made on."""

    exit_code = 2

    def __init__(self, message: str, where: SourceLine | None = None, fix: str = "") -> None:
        self.where = where
        self.fix = fix
        head = f"{where}: {message}" if where else message
        quoted = f"\n    {where.text}" if where and where.text else ""
        super().__init__(head + quoted + (f"\n  Fix: {fix}" if fix else ""))


class ProgramWarning(UserWarning):
    """Something in a network program that is allowed and will hurt on some data, with the line it was written on."""


class GaussianError(UserError):
    """A Gaussian expectation that does not exist or that no rule covers."""

    exit_code = 2


class DataError(UserError):
    """A data set that is missing, truncated, corrupted or not what it claims to be."""


class InternalError(TpcError):
    """A bug in tpc: an invariant of the compiler does not hold."""

    def __init__(self, message: str) -> None:
        super().__init__(f"internal error: {message}. This is a bug in tpc; please report it with the program.")


def text_of(error: BaseException) -> str:
    """What an exception says of itself, or that it cannot say it; exceptions of users' programs may fail even there."""
    try:
        return str(error)
    except Exception as failure:
        return f"its text cannot be had: __str__ raised {type(failure).__name__}"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence, after a blank, that proposes the choice closest to a name; nothing where none is close."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
