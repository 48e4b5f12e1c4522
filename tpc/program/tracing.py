"""Tracing: a plain Python function becomes a Program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tpc.errors import ProgramError, SourceLine
from tpc.program import tensor
from tpc.program.axes import SAMPLE, without
from tpc.program.context import Trace, root, tracing
from tpc.program.data import data_axes, own_shape
from tpc.program.program import Program
from tpc.program.trace import TracedTensor, TracedVector, scalar
from tpc.program.zeros import warn_of_zero_divisions


def trace(
    function: Callable[..., Any], name: str | None = None, *, input_shape: Sequence[int] | None = None, **settings: Any
) -> Program:
    """Run `function(x, **settings)` on a traced input and return its Program.

    The annotation of x tells its axes, (sample, feature) without one (tpc/program/data.py); `input_shape` gives the
    lengths of those of a sample, which windows need. A network that has `input_shape` among its own parameters gets
    it, and says by the default what it is where none is given. Raises ProgramError, with the user's line, for anything
    a Tensor Program cannot express; warns (ProgramWarning) of divisions by what is 0 for a sample of zeros.
    """
    default = own_shape(function)
    input_shape = default if input_shape is None else input_shape
    if default is not None:
        settings["input_shape"] = input_shape
    data = data_axes(function, input_shape)
    axes = (SAMPLE, *data)
    with tracing(data) as t:
        x = scalar(axes, lambda: tensor.Input("x", axes))
        x.where = None  # made here, not on a line of the user's
        result = function(x, **settings)
        program = _returned(function, name, result, t)
    warn_of_zero_divisions(program)
    return program


def _returned(function: Callable[..., Any], name: str | None, result: Any, t: Trace) -> Program:
    """The program of what a network returned, or the error that says what it should have been."""
    code = getattr(function, "__code__", None)
    here = SourceLine(code.co_filename, code.co_firstlineno) if code else None
    if isinstance(result, TracedVector):
        raise ProgramError(
            "a network must return its logits (a scalar with a class axis), got a vector",
            result.where or here,
            "end with tpc.readout(x, classes, name='readout')",
        )
    if isinstance(result, tuple | list | dict) and len(result) > 1:
        raise ProgramError(
            f"a network returns one output, got a {type(result).__name__} of {len(result)}: several outputs, each "
            "with its loss, are not in this version",
            here,
            "return one tpc.readout(x, classes) with the classes of all, or write a program for each",
        )
    if not isinstance(result, TracedTensor):
        raise ProgramError(
            f"a network must return its logits, got {type(result).__name__}",
            here,
            "return the result of tpc.readout",
        )
    others = without(result.axes, (SAMPLE,))
    if left := [a for a in others if root(a) in t.positions]:
        names = ", ".join(f"{root(a)!r}" for a in left)
        raise ProgramError(
            f"a network must return logits with axes (sample, class), got one for every place of {names}",
            result.where or here,
            f"average before the readout, tpc.mean(h, [{names}]), or read every place, tpc.readout(…, over=[{names}])",
        )
    if len(result.axes) != 2 or len(others) != 1 or others[0].size is None or not result.origin:
        shape = ", ".join(map(str, result.axes)) or "no axes"
        raise ProgramError(
            f"a network must return logits with axes (sample, class), got a scalar with {shape}",
            result.where or here,
            "return the result of tpc.readout(x, classes, name='readout')",
        )
    logits = result.build_tensor()
    if set(logits.axes) != set(result.axes):
        lost = ", ".join(map(str, without(result.axes, logits.axes)))
        raise ProgramError(
            f"the logits do not depend on {lost}: a factor is zero",
            result.where or here,
            "check the numbers and settings that multiply them",
        )
    joins = bool(getattr(function, "joins_samples", False))
    return Program(name or function.__name__, (("logits", logits),), dict(t.sources), joins)
