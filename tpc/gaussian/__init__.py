"""Gaussian expectations of nonlinearities: closed forms with their derivations, and numeric kernels."""

from tpc.gaussian.expectation import Expectation, expectation
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.mehler import MehlerSeries
from tpc.gaussian.moments import Step
from tpc.gaussian.stein import ExpectationTerm
from tpc.gaussian.symbols import RHO, C, P, Q, gram

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
