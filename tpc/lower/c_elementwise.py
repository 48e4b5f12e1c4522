"""Elementwise functions as scalar device functions in C: the text that the native backend and CUDA share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tpc.lower.operations import ARITY, Operation, Value

FUNCTIONS = Path(__file__).with_name("c_functions.h")

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_LIBRARY = {
    "sqrt": "sqrt", "exp": "exp", "log": "log", "sin": "sin", "cos": "cos", "tanh": "tanh", "erf": "erf",
    "erfc": "erfc", "abs": "fabs", "sinh": "sinh", "cosh": "cosh", "asinh": "asinh", "log1p": "log1p",
    "expm1": "expm1", "arcsin": "asin", "arctan2": "atan2", "power": "pow",
}  # fmt: skip
_OWN = (
    "rsqrt", "sign", "step", "relu", "arccos", "clip1", "maximum", "minimum", "softplus", "gap", "inverse", "root_sum",
)  # fmt: skip
_SHORT = {"negative": "-{0}", "square": "{0} * {0}", "reciprocal": "{one} / {0}"}
_SHORT |= {op: f"{{0}} {sign} {{1}}" for op, sign in _INFIX.items()}


def _calls(library: str, own: str) -> dict[str, str]:
    """Every operation, with the endings of the functions of the C library and of our own."""
    names = {op: name + library for op, name in _LIBRARY.items()} | {op: f"tpc_{op}{own}" for op in _OWN}
    places = {op: ", ".join(f"{{{i}}}" for i in range(ARITY[op])) for op in names}
    return _SHORT | {op: f"{name}({places[op]})" for op, name in names.items()}


OPERATIONS = _calls("f", "")  # how C computes what
_TEXTS = {"float": OPERATIONS, "double": _calls("", "_double")}
KNOWN = frozenset(OPERATIONS)


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
    return _TEXTS[real][o.op].format(*args, one=number(1, real))
