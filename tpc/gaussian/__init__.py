"""Gaussian expectations of nonlinearities: closed forms with their derivations, and numeric kernels."""

from typing import TYPE_CHECKING, Any

from tpc.gaussian.expectation import Expectation, expectation
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.moments import Step
from tpc.gaussian.stein import ExpectationTerm
from tpc.gaussian.symbols import RHO, C, P, Q, gram

if TYPE_CHECKING:
    from tpc.gaussian.series import MehlerSeries

__all__ = [
    "RHO",
    "C",
    "Expectation",
    "ExpectationTerm",
    "Kernel",
    "MehlerSeries",
    "P",
    "Q",
    "Step",
    "expectation",
    "gram",
    "kernel",
]


def __getattr__(name: str) -> Any:
    if name == "MehlerSeries":  # its numbers need SciPy, which takes long to import
        from tpc.gaussian.series import MehlerSeries

        return MehlerSeries
    raise AttributeError(f"module 'tpc.gaussian' has no attribute {name!r}")
