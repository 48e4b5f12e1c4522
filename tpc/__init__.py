"""tpc, the Tensor Program Compiler: write a network, derive its infinite-width limit, train it.

program = tpc.load("programs/mlp.py", hidden=2)
limit = tpc.compile(program, limit="pi")
model = limit.build(input_dim=64, rank=100)
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tpc.version import VERSION

if TYPE_CHECKING:  # `__getattr__` imports them when first used: sympy alone takes a quarter of a second
    from tpc.compiler import Limit
    from tpc.compiler import compile_program as compile
    from tpc.passes.adapt import adapt
    from tpc.passes.samples import joins_samples
    from tpc.program.data import Data, Image, Sequence
    from tpc.program.load import load
    from tpc.program.nn import (
        abs,
        bias,
        conv,
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
    from tpc.program.positions import avg_pool, mean
    from tpc.program.program import Program
    from tpc.program.text import listing, parse
    from tpc.program.trace import TracedTensor as Scalar
    from tpc.program.trace import TracedVector as Vector
    from tpc.program.tracing import trace
    from tpc.runtime.models.model import Model
    from tpc.runtime.models.support import Support
    from tpc.runtime.networks.drawn import finite
    from tpc.runtime.networks.network import Network

__version__ = VERSION

__all__ = [
    "Data",
    "Image",
    "Limit",
    "Model",
    "Network",
    "Program",
    "Scalar",
    "Sequence",
    "Support",
    "Vector",
    "abs",
    "adapt",
    "avg_pool",
    "bias",
    "compile",
    "conv",
    "cos",
    "dense",
    "elu",
    "erf",
    "exp",
    "finite",
    "gelu",
    "identity",
    "joins_samples",
    "leaky_relu",
    "listing",
    "load",
    "log_softmax",
    "mean",
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

_HOME = {
    "Data": ("tpc.program.data", "Data"),
    "Image": ("tpc.program.data", "Image"),
    "Limit": ("tpc.compiler", "Limit"),
    "Model": ("tpc.runtime.models.model", "Model"),
    "Network": ("tpc.runtime.networks.network", "Network"),
    "Program": ("tpc.program.program", "Program"),
    "Scalar": ("tpc.program.trace", "TracedTensor"),
    "Vector": ("tpc.program.trace", "TracedVector"),
    "adapt": ("tpc.passes.adapt", "adapt"),
    "Sequence": ("tpc.program.data", "Sequence"),
    "Support": ("tpc.runtime.models.support", "Support"),
    "avg_pool": ("tpc.program.positions", "avg_pool"),
    "finite": ("tpc.runtime.networks.drawn", "finite"),
    "joins_samples": ("tpc.passes.samples", "joins_samples"),
    "compile": ("tpc.compiler", "compile_program"),
    "listing": ("tpc.program.text", "listing"),
    "load": ("tpc.program.load", "load"),
    "mean": ("tpc.program.positions", "mean"),
    "parse": ("tpc.program.text", "parse"),
    "trace": ("tpc.program.tracing", "trace"),
}  # every other name is an operation of tpc.program.nn


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(_missing(name), name=name, obj=sys.modules[__name__])
    if name == "Model":
        import_module("tpc.compiler")  # what is loaded holds a Limit
    module, attribute = _HOME.get(name, ("tpc.program.nn", name))
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def _missing(name: str) -> str:
    """What a name that is not there means elsewhere, and what to write here."""
    told = f"module 'tpc' has no attribute {name!r}"
    if name.startswith("_"):
        return told
    from tpc.program.absent import PAGE, absent

    found = absent(name)
    return told if found is None else f"{told}: {found[0]}. Fix: {found[1]} (see {PAGE})"


def __dir__() -> list[str]:
    return sorted(__all__)
