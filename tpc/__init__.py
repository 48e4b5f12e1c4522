"""tpc, the Tensor Program Compiler: write a network, derive its infinite-width limit, train it.

program = tpc.load("programs/mlp.py", hidden=2)
limit = tpc.compile(program, limit="pi")
model = limit.build(input_dim=64, rank=100)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tpc.program.load import load
from tpc.program.nn import (
    abs,
    bias,
    cos,
    dense,
    elu,
    erf,
    exp,
    gelu,
    identity,
    leaky_relu,
    log_softmax,
    moment,
    nonlin,
    readout,
    relu,
    rms_norm,
    sigmoid,
    sign,
    silu,
    sin,
    softmax,
    softplus,
    softsign,
    step,
    tanh,
    total,
)
from tpc.program.program import Program
from tpc.program.text import listing, parse
from tpc.program.trace import TracedTensor as Scalar
from tpc.program.trace import TracedVector as Vector
from tpc.program.trace import trace

if TYPE_CHECKING:
    from tpc.compiler import Limit
    from tpc.compiler import compile_program as compile
    from tpc.runtime.model import Model

__version__ = "0.1.0"

_LAZY = {  # imported when first used, so that tracing a program loads no array code
    "Limit": ("tpc.compiler", "Limit"),
    "Model": ("tpc.runtime.model", "Model"),
    "compile": ("tpc.compiler", "compile_program"),
}
__all__ = [
    "Limit",
    "Model",
    "Program",
    "Scalar",
    "Vector",
    "abs",
    "bias",
    "compile",
    "cos",
    "dense",
    "elu",
    "erf",
    "exp",
    "gelu",
    "identity",
    "leaky_relu",
    "listing",
    "load",
    "log_softmax",
    "moment",
    "nonlin",
    "parse",
    "readout",
    "relu",
    "rms_norm",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "softsign",
    "step",
    "tanh",
    "total",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'tpc' has no attribute {name!r}", name=name, obj=__import__("tpc"))


def __dir__() -> list[str]:
    return sorted(__all__)
