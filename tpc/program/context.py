"""What is known while a network is traced: its spaces, its layers, and where in the user's file we are."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from tpc.errors import ProgramError, SourceLine, UsageError
from tpc.program.axes import FEATURE, Axes, Axis, Space
from tpc.program.node import Node
from tpc.program.rewrite import Recursion

_PACKAGE = str(Path(__file__).resolve().parents[1]) + "/"
_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def user_line() -> SourceLine | None:
    """The innermost line of the call stack that is outside tpc."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE) and not file.startswith("<frozen"):
            text = linecache.getline(file, frame.f_lineno).strip()
            return SourceLine(file, frame.f_lineno, text)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def fail(message: str, fix: str = "") -> NoReturn:
    raise ProgramError(message, user_line(), fix)


def root(axis: Axis) -> str:
    """The name that an axis of positions had in the data: height for height_4."""
    return axis.base if axis.size is None else re.sub(r"_\d+$", "", axis.base)


def check_lengths(axes: Axes) -> None:
    """Refuse what has two axes that were one, and have become of different lengths."""
    known: dict[str, Axis] = {}
    for a in axes:
        other = known.setdefault(root(a), a)
        if a.base != other.base and root(a) in Trace.current().positions:
            fail(
                f"expected the same places on both sides, got {other.size} along {other} and {a.size} along {a}",
                "use padding='same' and equal strides on both branches, or average the positions first",
            )


class SpaceVariable:
    """A space that may still turn out to be another one; `pinned` once the user named it."""

    def __init__(self, name: str, pinned: bool = False) -> None:
        self.name = name
        self.pinned = pinned
        self._parent: SpaceVariable | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpaceVariable) and self.root() is other.root()

    def __hash__(self) -> int:  # equality may come later, by a merge
        return 0

    def root(self) -> SpaceVariable:
        found = self
        while found._parent is not None:
            found = found._parent
        return found

    def resolve(self) -> Space:
        return Space(self.root().name)

    def merge(self, other: SpaceVariable) -> None:
        """Make two spaces one; the pinned name wins, else the older."""
        a, b = self.root(), other.root()
        if a is b:
            return
        if a.pinned and b.pinned:
            fail(
                f"vectors of different spaces meet: expected both in {a.name!r}, got {a.name!r} and {b.name!r}",
                "give both layers the same space=…, or map one of them with tpc.dense into the other's space",
            )
        keep, gone = (b, a) if b.pinned else (a, b)
        gone._parent = keep


class Trace:
    """What is known while a network function runs."""

    def __init__(self, data: Axes = (FEATURE,)) -> None:
        self.spaces: dict[str, SpaceVariable] = {}
        self.layers: dict[str, tuple[str, Any]] = {}
        self.sources: dict[Node, SourceLine] = {}
        self.recall = Recursion()  # of the nodes of traced values
        self.data: dict[str, Axis] = {a.name: a for a in data}  # the axes of a sample

    @property
    def last(self) -> str:
        """The axis of data that input layers contract."""
        return list(self.data)[-1]

    @property
    def positions(self) -> tuple[str, ...]:
        """The axes of data that vectors keep."""
        return tuple(self.data)[:-1]

    @staticmethod
    def current() -> Trace:
        trace = _current.get()
        if trace is None:
            raise UsageError(
                "tpc operations describe a network and run only while one is traced: "
                "write them in a function and pass it to tpc.trace(function) or tpc.load(file)"
            )
        return trace

    def space(self, name: str, pinned: bool = False) -> SpaceVariable:
        """The space variable of a name; pinning one that exists pins it."""
        variable = self.spaces.setdefault(name, SpaceVariable(name))
        if pinned and not variable.root().pinned:
            root = variable.root()
            root.pinned, root.name = True, name
        return variable


@contextmanager
def tracing(data: Axes = (FEATURE,)) -> Iterator[Trace]:
    """Trace a network whose samples have these axes."""
    token = _current.set(Trace(data))
    try:
        yield Trace.current()
    finally:
        _current.reset(token)
