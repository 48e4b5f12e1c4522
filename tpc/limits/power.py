"""Symmetric tensors over a rank axis, packed: Φ_n(g) holds every monomial of degree n in g once, scaled so that
⟨Φ_n(g), Φ_n(h)⟩ = ⟨g, h⟩ⁿ. Folded atoms live in this space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from tpc.errors import InternalError
from tpc.program.axes import Axes, Axis
from tpc.program.node import Scope, node
from tpc.program.tensor import Tensor, rename

ROLE = "power"


@dataclass(frozen=True, slots=True)
class Slot(Axis):
    """A packed axis, which knows the degree of what it packs."""

    order: int = 0


@node
class Power(Tensor):
    """Φ_order(arg) over a latent's rank axis; `slot` is the packed axis."""

    arg: Tensor
    rank: Axis
    slot: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.arg,), (self.rank,)),)

    @property
    def introduces(self) -> Axes:
        return (self.slot,)


@node
class Product(Tensor):
    """The symmetric part of args[0] ⊗ args[1] ⊗ …, packed; Φ_n(g) when all are g."""

    args: tuple[Tensor, ...]
    rank: Axis
    slot: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope(self.args, (self.rank,)),)

    @property
    def introduces(self) -> Axes:
        return (self.slot,)


@node
class Opened(Tensor):
    """⟨dual, arg ⊗ ·⟩ for a packed tensor of one degree less: its slot is contracted, and a rank axis is left."""

    dual: Tensor
    arg: Tensor
    rank: Axis
    slot: Axis
    lower: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (
            Scope((self.dual,), (self.slot,)),
            Scope((self.arg,), (self.lower,)),
        )

    @property
    def introduces(self) -> Axes:
        return (self.rank,)


@node
class Slope(Tensor):
    """∂⟨dual, Φ_order(arg)⟩/∂arg: the packed axis of `dual` is exchanged for the rank axis of `arg`."""

    dual: Tensor
    arg: Tensor
    rank: Axis
    slot: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (
            Scope((self.dual,), (self.slot,)),
            Scope((self.arg,), (self.rank,)),
        )

    @property
    def introduces(self) -> Axes:
        return (self.rank,)


@node
class Half(Tensor):
    """⟨matrix, arg ⊗ ·⟩ for a packed symmetric matrix: its axis `slot` becomes `left`, of the length of `rank`.

    A forward pass contracts it with `arg` once more, a backward pass with a dual over the outer axes: one pass over
    the matrix serves both.
    """

    matrix: Tensor
    arg: Tensor
    rank: Axis
    slot: Axis
    left: Axis

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (
            Scope((self.matrix,), (self.slot,)),
            Scope((self.arg,), (self.rank,)),
        )

    @property
    def introduces(self) -> Axes:
        return (self.left,)


def slot_axis(store: str, order: int) -> Axis:
    """The packed axis of the tensors of one degree that a store is folded to."""
    return Slot(f"{store}^{order}", None, ROLE, order)


def order_of(slot: Axis) -> int:
    """The degree of a packed axis."""
    if not isinstance(slot, Slot):
        raise InternalError(f"{slot} is no packed axis")
    return slot.order


def packed_size(rank: int, order: int) -> int:
    """How many monomials of a degree there are in `rank` variables."""
    return comb(rank + order - 1, order)


def power(args: Sequence[Tensor], rank: Axis, slot: Axis) -> Tensor:
    """The symmetric product of as many latents as the degree of `slot`; of a single one the latent itself."""
    if len(args) == 1:
        return rename(args[0], {rank: slot})
    return Power(args[0], rank, slot) if len(set(args)) == 1 else Product(tuple(args), rank, slot)


def slope(dual: Tensor, arg: Tensor, rank: Axis, slot: Axis) -> Tensor:
    """∂⟨dual, Φ(arg)⟩/∂arg, which for degree 1 is the dual itself."""
    return rename(dual, {slot: rank}) if order_of(slot) == 1 else Slope(dual, arg, rank, slot)
