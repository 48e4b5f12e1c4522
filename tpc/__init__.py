"""tpc, the Tensor Program Compiler: write a network, derive its infinite-width limit, train it.

    program = tpc.load("programs/mlp.py", hidden=2)
    limit = tpc.compile(program, limit="pi")
    model = limit.build(input_dim=64, rank=100)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tpc.program.load import load
from tpc.program.nn import (
    NONLINEARITIES,
    bias,
    dense,
    log_softmax,
    moment,
    nonlin,
    readout,
    rms_norm,
    softmax,
    total,
)
from tpc.program.program import Program
from tpc.program.text import listing, parse
from tpc.program.trace import TracedTensor as Scalar
from tpc.program.trace import TracedVector as Vector
from tpc.program.trace import trace

if TYPE_CHECKING:
    from tpc.compiler import Limit
    from tpc.compiler import compile_program as compile  # noqa: A004 - the contract's name
    from tpc.runtime.model import Model

__version__ = "0.1.0"

_LAZY = {
    "Limit": ("tpc.compiler", "Limit"),
    "Model": ("tpc.runtime.model", "Model"),
    "compile": ("tpc.compiler", "compile_program"),
}
_OPERATIONS = (
    "Scalar", "Vector", "bias", "dense", "log_softmax", "moment", "nonlin", "readout", "rms_norm", "softmax", "total",
)  # fmt: skip
__all__ = [  # noqa: PLE0604 - the nonlinearities are named by their table
    "Limit", "Model", "Program", "compile", "listing", "load", "parse", "trace", *_OPERATIONS, *NONLINEARITIES,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in NONLINEARITIES:
        return NONLINEARITIES[name]
    if name in _LAZY:
        from importlib import import_module

        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'tpc' has no attribute {name!r}", name=name, obj=__import__("tpc"))


def __dir__() -> list[str]:
    return sorted(__all__)
