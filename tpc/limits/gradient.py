"""The other route to the update: differentiate the limit graph of the network itself.

*limit ∘ gradient = gradient ∘ limit*. `pi_limit` takes the limit of the projected backward program; here the forward
program goes to the limit first, and reverse-mode differentiation (with Price's theorem for kernels) does the rest.
The two must agree; `tpc.limits.canonical` decides it symbolically.
"""

from __future__ import annotations

from dataclasses import dataclass

from tpc.limits.graph import LimitGraph
from tpc.limits.pi import PiLimit
from tpc.passes.backward import differentiate
from tpc.program import ir, tensor
from tpc.program.axes import Axes, union
from tpc.program.ir import Vector
from tpc.program.program import Program
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import ZERO, Input, Tensor


@dataclass(frozen=True)
class Site:
    """A place where a stored weight is applied: a perturbation of its output, and what it is applied to."""

    weight: str
    probe: Input
    x: Vector


class _ProbedLimit(PiLimit):
    """The forward limit with a perturbation added wherever a stored weight is applied."""

    def __init__(self, program: Program) -> None:
        self.sites: list[Site] = []
        super().__init__(program)

    def _probed(self, weight: str, value: Tensor, x: Vector) -> Tensor:
        probe = Input(f"d{len(self.sites)}:{weight}", value.axes)
        self.sites.append(Site(weight, probe, x))
        return tensor.add((value, probe))

    def _latent(self, x: Vector) -> Tensor:
        value = super()._latent(x)
        if isinstance(x, ir.MatMul) and isinstance(x.matrix, ir.MatrixWeight):
            return self._probed(x.matrix.name, value, x.x)
        return value

    def _tensor(self, n: Tensor) -> Tensor:
        value = super()._tensor(n)
        if isinstance(n, ir.Moment) and n.fn == ir.PRODUCT:
            for k, v in enumerate(n.xs):
                if isinstance(v, ir.VectorWeight) and v.role == "readout":
                    value = self._probed(v.name, value, n.xs[1 - k])
        return value


@dataclass(frozen=True)
class Gradient:
    """What route two finds for one weight: a gradient, or coefficients δ of the atoms of `columns`."""

    weight: str
    value: Tensor
    columns: tuple[Tensor, ...] = ()
    batch: Axes = ()


def gradients_of_limit(program: Program, derived: LimitGraph) -> list[Gradient]:
    """The gradients of `program` (a network with a loss, no backward pass), by differentiating its limit graph.

    `derived` gives the states: the limit graph of the same program by the other route.
    """
    limit = _ProbedLimit(program)
    loss = limit.tensor(program.tensor("loss"))
    states = {u.state: weight for weight, us in derived.updates for u in us if hasattr(u, "state")}
    probes = {s.probe: s for s in limit.sites}
    found = differentiate(loss, [*states, *probes])
    clean = _Unprobed(set(probes))
    out: list[Gradient] = []
    for state, weight in states.items():
        value = found.get(state, ZERO)
        assert isinstance(value, Tensor)
        out.append(Gradient(weight, clean(value)))
    for probe, site in probes.items():
        delta = found.get(probe, ZERO)
        assert isinstance(delta, Tensor)
        for t in limit.normal.terms(site.x):
            coefficient = clean(tensor.contract((limit.tensor(t.coefficient), delta)))
            columns = tuple(clean(limit.latent(g)) for g in t.gs)
            out.append(Gradient(site.weight, coefficient, columns, union(site.x.axes, t.over)))
    return out


class _Unprobed(Rewriter[Tensor]):
    """Sets the perturbations to zero."""

    def __init__(self, probes: set[Input]) -> None:
        super().__init__(dict.fromkeys(probes, ZERO))

    def rule(self, x: Tensor) -> Tensor:
        return self.remade(x)
