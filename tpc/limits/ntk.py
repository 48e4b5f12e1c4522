"""The NTK limit: the inner product of the output's gradients at two samples (Jacot et al. 2018; Tensor Programs II).

In NTK parametrization a weight is σ/√fan-in times a trained N(0, 1) array. The program's own gradients, with
dx = √n ∂f/∂x, give a matrix the share σ² E[Z^dy Z^dy'] E[Z^x Z^x'] for every pair of places where it is applied, an
input-like weight or bias the share σ²/fan-in Σ E[Z^d Z^d'], a readout σ² E[Z^x Z^x'], and its bias σ². All weights are
trained, the readout too. Gradients through a moment are smaller by n^(-1/2) and vanish: E Z^dx ψ(Z^x) = 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from tpc.errors import InternalError
from tpc.limits.graph import DIAGONAL, LimitGraph
from tpc.limits.nngp import NTK, covariances, graph_of
from tpc.limits.second_moments import SecondMoments, second_sample, second_vector, variance_of_entries
from tpc.limits.views import contracted
from tpc.passes.per_sample import sampled_outers
from tpc.passes.project import PREFIX
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axes, union, without
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node
from tpc.program.program import AnyWeight, Program
from tpc.program.renaming import freshened, renamed
from tpc.program.tensor import Tensor


def ntk_limit(program: Program) -> LimitGraph:
    """The limit of a program of `single_output` and `gradients`.

    Outputs "nngp" and "ntk" (sample, sample'), "nngp.diagonal" and "ntk.diagonal" (sample,). Raises ProgramError where
    the output is not linear in readouts.
    """
    moments = SecondMoments(program)
    outputs = dict(covariances(moments))
    weights = {f"{PREFIX}{w.name}": w for w in program.weights}
    for name, other in ((NTK, True), (NTK + DIAGONAL, False)):
        shares = [s for key, w in weights.items() if key in program for s in _shares(moments, w, program[key], other)]
        outputs[name] = tensor.add(shares)
    return graph_of(program, NTK, outputs, moments)


def _shares(moments: SecondMoments, w: AnyWeight, grad: Node, other: bool) -> Iterator[Tensor]:
    """What training a weight adds to the tangent kernel."""
    factor = variance_of_entries(w)
    if isinstance(grad, Matrix):
        places = list(sampled_outers(grad))
        for y, x, over in places:
            for dy, dx, bound in places:
                dy, dx, bound = _other(dy, dx, bound, w.axes, other)
                same = moments.ties.names(y, dy, bound, union(dy.axes, dx.axes))
                dy, dx, bound = renamed((dy, dx, bound), same)
                inside = (factor, moments.second(y, dy), moments.second(x, dx))
                yield contracted(inside, union(over, bound, w.axes))
    elif isinstance(grad, Vector):
        assert isinstance(w, ir.VectorWeight)
        own = without(w.shape, (SAMPLE,))
        second = second_vector(grad, own) if other else grad
        total = moments.second(grad, second)
        for term in total.terms if isinstance(total, tensor.Add) else (total,):
            yield _summed((factor, term), own)
    elif isinstance(grad, Tensor):
        g = moments.tensor(grad)
        own = without(w.axes, (SAMPLE,))
        yield tensor.contract((factor, g, second_sample(g, own) if other else g), own)
    else:
        raise InternalError(f"the gradient of {w.name} is a {type(grad).__name__}")


def _summed(factors: tuple[Tensor, ...], over: Axes) -> Tensor:
    """Σ Π factors, as one sum with that of a factor."""
    flat = [g for f in factors for g in (f.factors if isinstance(f, tensor.Contract) and not f.over else (f,))]
    last = flat[-1]
    outside = union(over, *(f.axes for f in flat[:-1]))
    if isinstance(last, tensor.Contract) and not set(last.over) & set(outside):
        flat, over = [*flat[:-1], *last.factors], union(last.over, over)
    return contracted(flat, over)


def _other(y: Vector, x: Vector, over: Axes, family: Axes, second: bool) -> tuple[Vector, Vector, Axes]:
    """The gradient of the second sample, or that of the first with bound axes of its own; families are one."""
    if second:
        return second_vector(y, family), second_vector(x, family), tuple(a.primed() for a in over)
    return freshened((y, x, over), over, union(y.axes, x.axes))
