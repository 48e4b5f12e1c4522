"""What a step changes: the stores of atoms and the arrays of a limit, and the forms that old atoms are folded to."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr

from tpc.limits.hermite import Index
from tpc.limits.nodes import State
from tpc.program.axes import Axes, Axis
from tpc.program.functions import X, argument
from tpc.program.tensor import Tensor


@dataclass(frozen=True)
class Store:
    """The atoms of one weight: X_m = fn(⟨z, columns_m⟩; thetas_m) with coefficients A_m.

    Along axes of the weight that the vectors it is applied to have, too, it is as many weights with atoms of their own:
    latents and parameters have these `tied` axes.
    `degree` is set when fn is positively homogeneous; the columns are then unit vectors.
    """

    weight: str
    name: str
    fn: Expr
    coefficients: State
    columns: tuple[State, ...]
    thetas: tuple[State, ...]
    atom: Axis
    degree: int | None
    scale: Expr
    readout: bool

    @property
    def tied(self) -> Axes:
        """The axes along which every place has atoms of its own."""
        return self.columns[0].axes[1:-1] if self.columns else ()

    @property
    def function(self) -> Expr:
        """fn as a function of X, for atoms of one latent."""
        return self.fn.xreplace({argument(0): X})


@dataclass(frozen=True)
class Append:
    """Gradient concatenation: for every index of `batch`, store an atom with coefficient -η·mult·coefficient."""

    store: Store
    coefficient: Tensor
    columns: tuple[Tensor, ...]
    thetas: tuple[Tensor, ...]
    batch: Axes


@dataclass(frozen=True)
class Accumulate:
    """state ← state - η·(learning rates)·gradient"""

    state: State
    gradient: Tensor
    std: Expr


Update = Append | Accumulate


@dataclass(frozen=True)
class HermiteTensor:
    """M_n = Σ_m A_m ⊗ E∇ⁿx_m for n = order, read with the weight.

    `profiles` are the multi-indices α of degree n with ∂^α fn, where its mean does not vanish.
    """

    order: int
    profiles: tuple[tuple[Index, Expr], ...]
    state: State
    weight: State


@dataclass(frozen=True)
class Tail:
    """Points z_i [point, rank] and values T_i [point, outer axes], read with the weight."""

    points: State
    values: State
    weight: State

    @property
    def axis(self) -> Axis:
        """Along the points."""
        return self.points.axes[0]

    @property
    def count(self) -> int:
        """The number N of points."""
        return int(self.axis.size or 0)


@dataclass(frozen=True)
class Fold:
    """A store whose atoms are folded, and the tensors that hold them."""

    store: Store
    degree: int
    moments: tuple[HermiteTensor, ...]
    tail: Tail | None = None

    @property
    def points(self) -> int:
        """How many points sample the tail."""
        return self.tail.count if self.tail else 0
