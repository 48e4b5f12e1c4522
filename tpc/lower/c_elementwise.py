"""Elementwise functions as scalar device functions in C: the text that the native backend and CUDA share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tpc.lower.operations import ARITY, Operation, Value

FUNCTIONS = Path(__file__).with_name("c_functions.h")

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_CALL = {
    "sqrt": "sqrtf", "exp": "expf", "log": "logf", "sin": "sinf", "cos": "cosf", "tanh": "tanhf", "erf": "erff",
    "erfc": "erfcf", "abs": "fabsf", "sinh": "sinhf", "cosh": "coshf", "asinh": "asinhf", "log1p": "log1pf",
    "expm1": "expm1f", "arcsin": "asinf", "arctan2": "atan2f", "power": "powf",
    "rsqrt": "tpc_rsqrt", "sign": "tpc_sign", "step": "tpc_step", "relu": "tpc_relu", "arccos": "tpc_arccos",
    "clip1": "tpc_clip1", "maximum": "tpc_maximum", "minimum": "tpc_minimum", "softplus": "tpc_softplus",
    "gap": "tpc_gap", "inverse": "tpc_inverse", "root_sum": "tpc_root_sum",
}  # fmt: skip

# how C computes what
OPERATIONS = {
    **{op: f"{{0}} {sign} {{1}}" for op, sign in _INFIX.items()},
    "negative": "-{0}", "square": "{0} * {0}", "reciprocal": "{one} / {0}",
    **{op: f"{call}({', '.join(f'{{{i}}}' for i in range(ARITY[op]))})" for op, call in _CALL.items()},
}  # fmt: skip
KNOWN = frozenset(OPERATIONS)


def _double(op: str) -> str:
    call = _CALL.get(op)
    if call is None:
        return OPERATIONS[op]
    return OPERATIONS[op].replace(call, f"{call}_double" if call.startswith("tpc_") else call.removesuffix("f"), 1)


_DOUBLE = {op: _double(op) for op in OPERATIONS}


def number(x: float, real: str = "float") -> str:
    """A literal."""
    text = repr(float(x)) + ("f" if real == "float" else "")
    return text if x >= 0 else f"({text})"


def device_function(
    name: str,
    arguments: Sequence[str],
    operations: Sequence[Operation],
    results: Mapping[str, Value],
    real: str = "float",
) -> str:
    """`TPC_DEV void name(float argument, …, float *result, …)`: computes every result of one element.

    Every operation must be in `KNOWN`. With `real` double it needs kernel_functions.h.
    """
    inputs = [f"{real} {a}" for a in arguments]
    outputs = [f"{real} *{r}" for r in results]
    lines = [f"TPC_DEV void {name}({', '.join(inputs + outputs)})", "{"]
    lines += [f"    const {real} {o.target.name} = {_operation(o, real)};" for o in operations]
    lines += [f"    *{result} = {_operand(value, real)};" for result, value in results.items()]
    return "\n".join([*lines, "}"]) + "\n"


def _operand(v: Value, real: str) -> str:
    return v.name if v.number is None else number(v.number, real)


def _operation(o: Operation, real: str) -> str:
    args = [_operand(a, real) for a in o.args]
    text = OPERATIONS[o.op] if real == "float" else _DOUBLE[o.op]
    return text.format(*args, one=number(1, real))
