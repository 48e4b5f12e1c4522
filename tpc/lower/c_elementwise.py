"""Elementwise functions as scalar device functions in C: the text that the native backend and CUDA share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tpc.lower.elementwise import Operation, Value

FUNCTIONS = Path(__file__).with_name("c_functions.h")

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_CALL = {
    "sqrt": "sqrtf", "exp": "expf", "log": "logf", "sin": "sinf", "cos": "cosf", "tanh": "tanhf", "erf": "erff",
    "erfc": "erfcf", "abs": "fabsf", "sinh": "sinhf", "cosh": "coshf", "asinh": "asinhf", "log1p": "log1pf",
    "expm1": "expm1f", "arcsin": "asinf", "arctan2": "atan2f", "power": "powf",
    "rsqrt": "tpc_rsqrt", "sign": "tpc_sign", "step": "tpc_step", "relu": "tpc_relu", "arccos": "tpc_arccos",
    "clip1": "tpc_clip1", "maximum": "tpc_maximum", "minimum": "tpc_minimum", "softplus": "tpc_softplus",
    "gap": "tpc_gap",
}  # fmt: skip

KNOWN = frozenset(_INFIX) | frozenset(_CALL) | {"negative", "square", "reciprocal"}


def number(x: float) -> str:
    """A float literal."""
    text = repr(float(x))
    return f"{text}f" if x >= 0 else f"({text}f)"


def device_function(
    name: str, arguments: Sequence[str], operations: Sequence[Operation], results: Mapping[str, Value]
) -> str:
    """`TPC_DEV void name(float argument, …, float *result, …)`: computes every result of one element.

    Every operation must be in `KNOWN`.
    """
    inputs = [f"float {a}" for a in arguments]
    outputs = [f"float *{r}" for r in results]
    lines = [f"TPC_DEV void {name}({', '.join(inputs + outputs)})", "{"]
    lines += [f"    const float {o.target.name} = {_operation(o)};" for o in operations]
    lines += [f"    *{result} = {_operand(value)};" for result, value in results.items()]
    return "\n".join([*lines, "}"]) + "\n"


def _operand(v: Value) -> str:
    return v.name if v.number is None else number(v.number)


def _operation(o: Operation) -> str:
    args = [_operand(a) for a in o.args]
    if o.op in _INFIX:
        return f"{args[0]} {_INFIX[o.op]} {args[1]}"
    if o.op == "negative":
        return f"-{args[0]}"
    if o.op == "square":
        return f"{args[0]} * {args[0]}"
    if o.op == "reciprocal":
        return f"1.0f / {args[0]}"
    return f"{_CALL[o.op]}({', '.join(args)})"
