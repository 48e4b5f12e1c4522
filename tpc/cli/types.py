"""Types of command-line parameters: what a text means, what it may be, and what the shell may offer for it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tpc.errors import UserError, did_you_mean


class Choice(click.Choice[str]):
    """One of some names; one that is close to what was given is proposed."""

    def __init__(self, choices: Iterable[str]) -> None:
        super().__init__(tuple(choices))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(super().convert(value, param, ctx))
        except click.BadParameter as error:
            raise click.BadParameter(error.message + did_you_mean(str(value), self.choices), ctx, param) from error


class Available(Choice):
    """A choice of which later versions have more: what is not there is told by its name."""

    def __init__(self, what: str, choices: Iterable[str], unfit: Mapping[str, str] | None = None) -> None:
        super().__init__(choices)
        self.what = what
        self.unfit = unfit or {}  # what is there, but not for this command, and why

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            reason = self.unfit.get(value, "is not in this version")
            hint = did_you_mean(str(value), self.choices)
            told = f"the {value} {self.what} {reason}; available: {', '.join(self.choices)}.{hint}"
            raise click.UsageError(told, ctx)
        return str(value)


class LimitChoice(Available):
    """A choice among limits, as they are known when the command runs."""

    def __init__(self, builds: str = "", others: str = "", more: tuple[str, ...] = ()) -> None:
        self._builds, self._others, self._more = builds, others, more  # what those that fit build; of any limit ""
        super().__init__("limit", ())

    @property
    def choices(self) -> tuple[str, ...]:
        from tpc.limits.kinds import LIMITS  # not for the list of commands

        fit = (name for name, kind in LIMITS.items() if self._builds in ("", kind.builds))
        return (*fit, *self._more)

    @choices.setter
    def choices(self, given: object) -> None:
        """What `click.Choice` was made with is not looked at."""

    @property
    def unfit(self) -> dict[str, str]:
        from tpc.limits.kinds import LIMITS

        return dict.fromkeys(LIMITS, self._others) if self._others else {}

    @unfit.setter
    def unfit(self, given: object) -> None:
        """All limits that do not fit are so for one reason."""


class Named(click.types.StringParamType):
    """A text of which the usual ones are known; what it may be is decided where it is used."""

    def __init__(self, *known: str) -> None:
        self.known = known

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.known if name.startswith(incomplete)]


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
