"""NETSOR⊤⁺: vectors of R^n, matrices between spaces, and the moments that turn vectors into finite tensors.

Coordinates are Θ(1) throughout. A readout is stored as n·v, so v x is the moment of a product; an
input-like matrix is a vector weight with a finite axis, so U ξ is a linear combination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import sympy as sp
from sympy import Expr

from tpc.errors import InternalError
from tpc.program.axes import Axes, Axis, Space, after, effective, ordered, without
from tpc.program.functions import argument
from tpc.program.node import Node, Scope, kept, node
from tpc.program.tensor import ONE, Constant, Tensor, broadcast, is_number


@cache
def theta(i: int) -> sp.Symbol:
    """The i-th finite parameter of a nonlinearity, t0, t1, …"""
    return sp.Symbol(f"t{i}", real=True)


class Vector(Node):
    """n values, one per neuron of `space`, along finite `axes`.

    `linear` instructions make a G-vector of G-vectors.
    """

    __slots__ = ("_kind", "_space")
    linear: ClassVar[bool] = False

    @property
    def space(self) -> Space:
        return kept(self, "_space", self._find_space)

    @property
    def kind(self) -> str:
        """G: a Gaussian vector, in the span of the space's Ω; X: any function of such vectors."""
        return kept(self, "_kind", self._find_kind)

    def derive(self) -> None:
        _ = self.axes, self.kind, self.space

    @property
    def vectors(self) -> tuple[Vector, ...]:
        """The vectors among its operands; they are of one space."""
        return tuple(x for x in self.operands if isinstance(x, Vector))

    def _find_space(self) -> Space:
        return self.vectors[0].space

    def _find_kind(self) -> str:
        return "G" if self.linear and all(x.kind == "G" for x in self.vectors) else "X"


class Matrix(Node):
    """A linear map from the vectors of space `inn` to those of space `out`, or one for every place of finite axes."""

    __slots__ = ()

    @property
    def out(self) -> Space:
        raise InternalError(f"{type(self).__name__} has no output space")

    @property
    def inn(self) -> Space:
        raise InternalError(f"{type(self).__name__} has no input space")


@node
class VectorWeight(Vector):
    """A trained vector: an input-like matrix or bias (role "input"), or n times a readout (role "readout")."""

    name: str
    within: Space
    shape: Axes
    role: str
    std: Expr

    @property
    def introduces(self) -> Axes:
        return self.shape

    def _find_space(self) -> Space:
        return self.within

    def _find_kind(self) -> str:
        return "G" if self.role == "input" else "X"


@node
class MatrixWeight(Matrix):
    """A trained matrix between two spaces, or one for every place of the axes `shape`."""

    name: str
    left: Space
    right: Space
    std: Expr
    shape: Axes = ()

    @property
    def introduces(self) -> Axes:
        return self.shape

    @property
    def out(self) -> Space:
        return self.left

    @property
    def inn(self) -> Space:
        return self.right


@node
class Transpose(Matrix):
    """A view: Wᵀ stays visibly the same matrix as W."""

    arg: Matrix

    @property
    def out(self) -> Space:
        return self.arg.inn

    @property
    def inn(self) -> Space:
        return self.arg.out

    @classmethod
    def build(cls, *fields: Any) -> Matrix:
        return transpose(*fields)


@node
class Outer(Matrix):
    """(1/n) Σ_over y xᵀ: the gradient of a matrix, or of a family of them along the axes that are left."""

    y: Vector
    x: Vector
    over: Axes

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return (Scope((self.y, self.x), self.over),)

    @property
    def out(self) -> Space:
        return self.y.space

    @property
    def inn(self) -> Space:
        return self.x.space


@node
class MatrixSum(Matrix):
    """A sum of matrices."""

    terms: tuple[Matrix, ...]

    @property
    def out(self) -> Space:
        return self.terms[0].out

    @property
    def inn(self) -> Space:
        return self.terms[0].inn

    @classmethod
    def build(cls, *fields: Any) -> Matrix:
        return matrix_sum(*fields)


@node
class MatMul(Vector):
    """y = W x; along axes that both have they are tied, W[o] x[o]"""

    matrix: Matrix
    x: Vector

    def _find_space(self) -> Space:
        return self.matrix.out

    def _find_kind(self) -> str:
        return "X" if isinstance(self.matrix, Transpose) else "G"


@node
class Nonlin(Vector):
    """y_α = fn(x₁α, …, x_kα; θ), coordinatewise; fn is written in u0, u1, … and t0, t1, …"""

    fn: Expr
    xs: tuple[Vector, ...]
    thetas: tuple[Tensor, ...]

    @property
    def symbols(self) -> tuple[Expr, ...]:
        return _symbols(self)

    @classmethod
    def build(cls, *fields: Any) -> Vector:
        return nonlin(*fields)


@node
class LinComb(Vector):
    """y = Σ_i Σ_over_i c_i x_i; each term is (coefficient, vector, axes summed over)."""

    linear: ClassVar[bool] = True
    terms: tuple[tuple[Tensor, Vector, Axes], ...]

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return tuple(Scope((c, x), over) for c, x, over in self.terms)

    @classmethod
    def build(cls, *fields: Any) -> Vector | None:
        return lincomb(*fields)


@node
class RenameVector(Vector):
    """The same vectors under other axis names."""

    linear: ClassVar[bool] = True
    arg: Vector
    pairs: tuple[tuple[Axis, Axis], ...]

    @property
    def renames(self) -> tuple[tuple[Axis, Axis], ...]:
        return self.pairs

    @classmethod
    def build(cls, arg: Vector, pairs: tuple[tuple[Axis, Axis], ...]) -> Vector:
        return rename_vector(arg, dict(pairs))


@node
class Project(Vector):
    """Π x = Ω(ΩᵀΩ)⁻¹Ωᵀ x, the projection to the span of the space's Ω (Yang, Santacroce, Hu 2022, §3)."""

    arg: Vector

    def _find_kind(self) -> str:
        return "G"


@node
class Learned(Vector):
    """A gradient that the network itself takes a step along: the same vectors, which limits may project."""

    linear: ClassVar[bool] = True
    arg: Vector


@node
class StopGradientVector(Vector):
    """The same vectors, taken as constant by differentiation."""

    linear: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False
    arg: Vector

    @classmethod
    def build(cls, *fields: Any) -> Vector:
        return stop_gradient(*fields)


@node
class Moment(Tensor):
    """(1/n) Σ_α fn(x₁α, …, x_kα; θ)"""

    fn: Expr
    xs: tuple[Vector, ...]
    thetas: tuple[Tensor, ...]

    @property
    def symbols(self) -> tuple[Expr, ...]:
        return _symbols(self)

    @classmethod
    def build(cls, *fields: Any) -> Tensor:
        return moment(*fields)


def _symbols(n: Nonlin | Moment) -> tuple[Expr, ...]:
    return (*(argument(i) for i in range(len(n.xs))), *(theta(j) for j in range(len(n.thetas))))


PRODUCT = argument(0) * argument(1)


def transpose(w: Matrix) -> Matrix:
    return w.arg if isinstance(w, Transpose) else Transpose(w)


def _pruned(
    fn: Expr, xs: Sequence[Vector], thetas: Sequence[Tensor]
) -> tuple[Expr, tuple[Vector, ...], tuple[Tensor, ...]]:
    """Drop unused arguments, merge equal ones, fold constants."""
    first: dict[Vector, int] = {}
    for i, x in enumerate(xs):
        fn = fn.xreplace({argument(i): argument(first.setdefault(x, i))})
    fn = fn.xreplace({theta(j): t.value for j, t in enumerate(thetas) if isinstance(t, Constant)})
    used = [i for i in range(len(xs)) if fn.has(argument(i))] or [0]
    kept = [j for j in range(len(thetas)) if fn.has(theta(j))]
    fn = fn.xreplace({argument(i): argument(k) for k, i in enumerate(used)})
    fn = fn.xreplace({theta(j): theta(k) for k, j in enumerate(kept)})
    return fn, tuple(xs[i] for i in used), tuple(thetas[j] for j in kept)


def nonlin(fn: Expr, xs: Sequence[Vector], thetas: Sequence[Tensor] = ()) -> Vector:
    """Nonlin; the identity is its argument."""
    fn, kept, params = _pruned(sp.sympify(fn), xs, thetas)
    return kept[0] if fn == argument(0) and not params else Nonlin(fn, kept, params)


def moment(fn: Expr, xs: Sequence[Vector], thetas: Sequence[Tensor] = ()) -> Tensor:
    """Moment; a constant is itself."""
    fn, kept, params = _pruned(sp.sympify(fn), xs, thetas)
    return Constant(fn) if not fn.free_symbols else Moment(fn, kept, params)


def lincomb(terms: Iterable[tuple[Tensor, Vector, Iterable[Axis]]]) -> Vector | None:
    """LinComb without zero terms; None when nothing is left, the vector itself when it is 1·x."""
    kept = tuple((c, x, tuple(over)) for c, x, over in terms if not is_number(c, 0))
    if not kept:
        return None
    if len(kept) == 1 and kept[0][0] is ONE and not kept[0][2]:
        return kept[0][1]
    return LinComb(kept)


def spread(x: Vector, axes: Axes) -> Vector:
    """x repeated along those of `axes` that it lacks."""
    missing = without(axes, x.axes)
    return LinComb(((broadcast(ONE, missing), x, ()),)) if missing else x


def matrix_sum(terms: Sequence[Matrix]) -> Matrix:
    return terms[0] if len(terms) == 1 else MatrixSum(tuple(terms))


def rename_vector(x: Vector, pairs: Mapping[Axis, Axis]) -> Vector:
    """Rename axes; renamings merge and vanish where they change nothing."""
    pairs = effective(pairs, x.axes)
    if not pairs:
        return x
    if isinstance(x, RenameVector):
        return rename_vector(x.arg, after(x.pairs, pairs))
    return RenameVector(x, ordered(pairs))


def stop_gradient(x: Vector) -> Vector:
    return x if isinstance(x, StopGradientVector) else StopGradientVector(x)
