"""Every kernel of a limit must exist: a nonlinearity that has none is told at compile time, at the user's line."""

from __future__ import annotations

from sympy import DiracDelta, Expr

from tpc.errors import GaussianError, ProgramError, SourceLine
from tpc.gaussian import expectation
from tpc.gaussian.kernel import kernel
from tpc.limits.expect import divergences
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, Kernel
from tpc.program.functions import X, argument
from tpc.program.ir import Moment, Nonlin
from tpc.program.program import Program


def check_kernels(graph: LimitGraph, network: Program) -> None:
    """Derive every kernel of the graph. Raises ProgramError with the line of the nonlinearity that has none."""
    for n in graph.nodes:
        try:
            if isinstance(n, Kernel):
                kernel(n.phi, n.psi)
            elif isinstance(n, Expectation):
                expectation(n.fn, [argument(i) for i in range(n.size)])
        except GaussianError as e:
            found = (getattr(n, name, None) for name in ("phi", "psi", "fn"))
            functions = tuple(f for f in found if f is not None)
            raise ProgramError(
                f"the {graph.limit}-limit needs an expectation that cannot be computed: {e}",
                _line(functions, network),
            ) from e


def divergence_warnings(graph: LimitGraph) -> tuple[str, ...]:
    """A warning where expectations are infinite at |ρ| = 1, where a latent meets a stored one.

    They come from jumps (step, sign) that are differentiated twice, and generated code takes them as 0 at |ρ| = 1.
    """
    if not graph.divergent:
        return ()
    first, *others = graph.divergent
    more = f" (and {len(others)} like it)" if others else ""
    return (
        f"{first}{more} is infinite where a latent equals a stored one up to a factor: training is only reliable while "
        "samples do not repeat; a nonlinearity without jumps (erf for sign) avoids it",
    )


def refuse_divergent(graph: LimitGraph, network: Program) -> None:
    """Raise ProgramError for what is infinite at equal samples, as the tangent kernel of a jump is."""
    for n in graph.nodes:
        if not isinstance(n, Kernel | Expectation):
            continue
        functions = (n.phi, n.psi) if isinstance(n, Kernel) else (n.fn,)
        for name in divergences(n):
            raise ProgramError(
                f"the {graph.limit}-limit does not exist: {name} is infinite at equal samples, for the "
                "derivative of a jump has no variance",
                _jump(network) or _line(functions, network),
                "use a nonlinearity without jumps (erf for sign), or take the NNGP limit, which has none of them",
            )


def _jump(network: Program) -> SourceLine | None:
    """The first line with a nonlinearity whose derivative is a Dirac delta."""
    for n in network.nodes:
        if isinstance(n, Nonlin) and any(n.fn.diff(argument(i)).has(DiracDelta) for i in range(len(n.xs))):
            return network.where(n)
    return None


def _line(functions: tuple[Expr, ...], network: Program) -> SourceLine | None:
    """The line an expectation came from: of the same function, else of one made of the same parts."""
    wanted = {part for fn in functions for part in _parts(fn)}
    best, shared = None, 0
    for n in network.nodes:
        if not isinstance(n, Nonlin | Moment) or network.where(n) is None:
            continue
        score = 1000 if n.fn.xreplace({argument(0): X}) in functions else len(wanted & _parts(n.fn))
        if score > shared:
            best, shared = network.where(n), score
    return best


def _parts(fn: Expr) -> set[type]:
    """The functions an expression is made of."""
    return {type(fn)}.union(*(_parts(a) for a in fn.args)) - {type(X)}
