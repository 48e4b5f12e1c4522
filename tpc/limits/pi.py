"""The π-limit of a program with projected gradients (Yang, Santacroce, Hu 2022; rules: docs/concepts/pi_limit.md).

A G-vector h = Ω g becomes its latent g. An X-vector becomes a function of ⟨z, g⟩, z ~ N(0, I_r). A trained matrix
W = (1/n) Ω' Aᵀ X becomes its coefficients A and atoms X. Moments become expectations over z. Each rule below is one
instruction; none knows any architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce, singledispatchmethod
from itertools import chain, product

from sympy import Expr

from tpc.errors import InternalError, ProgramError
from tpc.limits.expect import divergences, expectation
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State, gram, stored
from tpc.limits.store import Accumulate, Append, Store, Update
from tpc.limits.term import Leaf, LimitTerm, degree_of, multiply
from tpc.passes.moves import moved, moves_of, through
from tpc.passes.normal import Normaliser, Term
from tpc.passes.project import PREFIX, outers
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axes, Axis, union, without
from tpc.program.functions import argument, partial
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node, remade
from tpc.program.program import AnyWeight, Program
from tpc.program.rewrite import Recursion
from tpc.program.tensor import ONE, ZERO, Broadcast, Tensor, Weight


def pi_limit(program: Program) -> LimitGraph:
    """The limit graph of a program that has logits, and optionally loss, projected gradients and norms."""
    return PiLimit(program).graph()


class PiLimit:
    """One derivation: remembers the image of every node."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.normal = Normaliser(program)
        self.stores: dict[str, tuple[Store, ...]] = {}
        self._tensors: dict[Tensor, Tensor] = {}
        self._latents: dict[Vector, Tensor] = {}
        self._limits: dict[Term, list[LimitTerm]] = {}
        self._recall = Recursion()
        self.divergent: dict[str, None] = {}
        for w in program.weights:
            if isinstance(w, ir.MatrixWeight) or (isinstance(w, ir.VectorWeight) and w.role == "readout"):
                self.stores[w.name] = tuple(self._declare(w))

    # --- the graph ---------------------------------------------------------------------------------------------

    def graph(self) -> LimitGraph:
        outputs, norms = [], []
        updates: list[tuple[str, tuple[Update, ...]]] = []
        weights = {w.name: w for w in self.program.weights}
        for name, value in self.program.outputs:
            label, _, weight = name.rpartition(":")
            if label == "grad":
                updates.append((weight, tuple(self.update(weights[weight], value))))
            elif isinstance(value, Tensor) and label == "norm2":
                norms.append((weight, self.tensor(value)))
            elif isinstance(value, Tensor):
                outputs.append((name, self.tensor(value)))
        order = list(weights)
        updates.sort(key=lambda u: order.index(u[0]))
        images: dict[Node, Tensor] = dict(chain(self._latents.items(), self._tensors.items()))
        sources: dict[Tensor, Node] = {}
        for n in self.program.nodes:  # the first of several with one limit
            if (image := images.get(n)) is not None:
                sources.setdefault(image, n)
        found = (self.program.name, "pi", tuple(outputs), tuple(updates), tuple(norms), sources)
        return LimitGraph(*found, divergent=tuple(self.divergent))

    # --- weights -----------------------------------------------------------------------------------------------

    def _declare(self, w: ir.MatrixWeight | ir.VectorWeight) -> Iterator[Store]:
        """One store for every form of atom that the gradient of w is a sum of."""
        forms = dict.fromkeys(_form(w, t) for t in self._atom_terms(w))
        inner = Axis(f"r_{w.inn if isinstance(w, ir.MatrixWeight) else w.space}", role="rank")
        outer = (Axis(f"r_{w.out}", role="rank"),) if isinstance(w, ir.MatrixWeight) else ()
        for k, (fn, columns, thetas, tied) in enumerate(forms):
            name = w.name if k == 0 else f"{w.name}.{k + 1}"
            atom = Axis(name, role="atom")
            degree = degree_of(fn) if columns == 1 and not thetas else None
            yield Store(
                w.name,
                name,
                fn,
                State(f"{name}.A", (atom, *stored(w.axes), *outer)),
                tuple(
                    State(f"{name}.B" if i == 0 else f"{name}.B{i + 1}", (atom, *tied, inner), degree is not None)
                    for i in range(columns)
                ),
                tuple(State(f"{name}.t{j}", (atom, *tied)) for j in range(thetas)),
                atom,
                degree,
                w.std,
                isinstance(w, ir.VectorWeight),
            )

    def _atom_terms(self, w: AnyWeight) -> Iterator[Term]:
        """The terms stored for w: from its gradient, or from the places it is applied."""
        found = f"{PREFIX}{w.name}" in self.program
        grad = self.program[f"{PREFIX}{w.name}"] if found else None
        sources: list[Vector] = []
        if isinstance(grad, Matrix):
            sources = [o.x for o in outers(grad)]
        elif isinstance(grad, Vector):
            sources = [grad]
        else:
            for n in self.program.nodes:
                if isinstance(n, ir.MatMul) and n.matrix is w:
                    sources.append(n.x)
                elif isinstance(n, ir.Moment) and n.fn == ir.PRODUCT and w in n.xs:
                    sources += [x for x in n.xs if x is not w]
        for x in sources:
            for t in self.normal.summands(x, w.axes) if isinstance(w, Vector) and x is grad else self.normal.terms(x):
                if t.leaves:
                    raise ProgramError(
                        f"the gradient of {w.name!r} joins sums of stored atoms, and cannot be stored as atoms itself",
                        self.program.where(x),
                        f"apply a nonlinearity of G-vectors before {w.name!r}",
                    )
                yield t

    def update(self, w: AnyWeight, grad: Node) -> Iterator[Update]:
        """What a step does to a weight."""
        if isinstance(w, tensor.Weight):
            assert isinstance(grad, Tensor)
            yield Accumulate(self._state(w), self.tensor(grad), w.std)
        elif isinstance(w, ir.VectorWeight) and w.role == "input":
            assert isinstance(grad, Vector)
            yield Accumulate(self._state(w), self.latent(grad), w.std)
        elif isinstance(grad, Matrix):
            for o in outers(grad):
                for t in self.normal.terms(o.x):
                    delta = tensor.contract((t.coefficient, self.latent(o.y)))
                    yield self._append(w, t, delta, union(o.over, t.over))
        elif isinstance(w, ir.VectorWeight) and isinstance(grad, Vector):
            for t in self.normal.summands(grad, w.axes):
                yield self._append(w, t, self.tensor(t.coefficient), t.over)

    def _append(self, w: AnyWeight, t: Term, coefficient: Tensor, batch: Axes) -> Append:
        columns = tuple(self.latent(g) for g in t.gs)
        if ZERO in columns:
            raise ProgramError(
                f"{w.name!r} is applied to a vector that is zero whatever the weights are",
                next((where for g in t.gs if (where := self.program.where(g))), None),
                "check the numbers and settings that multiply it",
            )
        key = _form(w, t)
        store = next(s for s in self.stores[w.name] if (s.fn, len(s.columns), len(s.thetas), s.tied) == key)
        return Append(store, self.tensor(coefficient), columns, tuple(self.tensor(p) for p in t.thetas), batch)

    def _state(self, w: tensor.Weight | ir.VectorWeight) -> State:
        name = f"{w.name}.A" if isinstance(w, ir.VectorWeight) and w.axes else w.name
        rank = (Axis(f"r_{w.space}", role="rank"),) if isinstance(w, ir.VectorWeight) else ()
        return State(name, (*stored(w.axes), *rank))

    # --- finite tensors ----------------------------------------------------------------------------------------

    def tensor(self, n: Tensor) -> Tensor:
        """The limit of a finite tensor."""
        return self._recall(self._tensors, n, self._tensor)

    @singledispatchmethod
    def _tensor(self, n: Tensor) -> Tensor:
        made = remade(n, lambda m: self.tensor(m) if isinstance(m, Tensor) else m)
        assert isinstance(made, Tensor)
        return made

    @_tensor.register
    def _(self, n: Weight) -> Tensor:
        return self._state(n)

    @_tensor.register
    def _(self, n: Broadcast) -> Tensor:
        return tensor.broadcast(self.tensor(n.arg), n.axes)

    @_tensor.register
    def _(self, n: ir.Moment) -> Tensor:
        # (1/n) Σ fn(x) → E fn(Z^x); with a G-vector, E⟨z,g⟩ x(z) = ⟨g, E z x(z)⟩
        if n.fn in (ir.PRODUCT, argument(0) ** 2) and any(x.kind == "G" for x in n.xs):
            return gram(self.latent(n.xs[0]), self.latent(n.xs[-1]))
        return tensor.add(part for t in self.normal.applied(n.fn, n.xs, n.thetas, n) for part in self.means(t))

    # --- vectors -----------------------------------------------------------------------------------------------

    def latent(self, x: Vector) -> Tensor:
        """E[z x(z)]: the latent of a G-vector, the latent of the projection of any other."""
        return self._recall(self._latents, x, self._latent)

    @singledispatchmethod
    def _latent(self, x: Vector) -> Tensor:
        return self._projected(x)

    @_latent.register
    def _(self, x: ir.VectorWeight) -> Tensor:
        return self._state(x) if x.role == "input" else self._projected(x)

    @_latent.register
    def _(self, x: ir.LinComb) -> Tensor:
        # Π is linear
        return tensor.add(tensor.contract((self.tensor(c), self.latent(y)), over) for c, y, over in x.terms)

    @_latent.register
    def _(self, x: ir.RenameVector) -> Tensor:
        return tensor.rename(self.latent(x.arg), dict(x.pairs))

    @_latent.register
    def _(self, x: shift.ShiftedVector | shift.UnshiftedVector) -> Tensor:
        # so is a window: Π shift(y) = shift(Π y)
        return through(x, self.latent(x.arg))

    @_latent.register
    def _(self, x: ir.Project) -> Tensor:
        return self.latent(x.arg)

    @_latent.register
    def _(self, x: ir.MatMul) -> Tensor:
        # W = (1/n) Ω' Aᵀ X:  g' = Σ_m A_m K(x_m, x)
        if not isinstance(x.matrix, ir.MatrixWeight):
            return self._projected(x)
        stores = self.stores[x.matrix.name]
        return tensor.add(part for s in stores for t in self.normal.terms(x.x) for part in self.applied(s, t))

    def _projected(self, x: Vector) -> Tensor:
        return tensor.add(part for t in self.normal.terms(x) for part in self.projections(t))

    # --- normal-form terms -------------------------------------------------------------------------------------

    def means(self, t: Term) -> Iterator[Tensor]:
        """The summands of E t."""
        for s in self.limits(t):
            yield self.expected(s, s.fn)

    def applied(self, store: Store, t: Term) -> Iterator[Tensor]:
        """The summands of W t, for the part of W that a store holds: Σ_m A_m E[x_m t]."""
        atom = LimitTerm(ONE, store.fn, store.columns, store.thetas, ())
        for s in self.limits(t):
            together = multiply(atom, s, store.coefficients.axes)
            k = self.expected(replace(together, over=without(together.over, (store.atom,))), together.fn)
            yield tensor.contract((store.coefficients, k), (store.atom,))

    def projections(self, t: Term) -> Iterator[Tensor]:
        """The summands of E[z t], by Stein: E[z f(⟨z,g₁⟩, …)] = Σ_j E[∂_j f] g_j"""
        for s in self.limits(t):
            for j, g in enumerate(s.latents):
                slope = partial(s.fn, argument(j))
                if slope != 0:
                    yield self.expected(s, slope, g, projected=True)

    def expected(self, t: LimitTerm, fn: Expr, *extra: Tensor, projected: bool = False) -> Tensor:
        """Σ_over coefficient · E fn · Π extra

        Infinite ones are noted. Those of a projection, Σ_j E[∂_j f] g_j, may grow like 1/√(pq − c²): they multiply a
        difference of the two latents that vanishes as fast.
        """
        value = expectation(fn, t.latents, t.thetas)
        parts = value.terms if isinstance(value, tensor.Add) else (value,)
        self.divergent.update(dict.fromkeys(divergences(value, bound=int(projected))))
        return tensor.add(tensor.contract((t.coefficient, part, *extra), t.over) for part in parts)

    def limits(self, t: Term) -> list[LimitTerm]:
        """A term with its leaves replaced by sums over atoms."""
        return self._recall(self._limits, t, self._limits_of)

    def _limits_of(self, t: Term) -> list[LimitTerm]:
        made = []
        for choice in product(*(self._leaf(x) for x in t.leaves)):
            whole = self.without_leaves(t)
            for part in choice:
                whole = multiply(whole, part, t.axes)
            made.append(whole)
        return made

    def without_leaves(self, t: Term) -> LimitTerm:
        """All of a term but its leaves."""
        return LimitTerm(
            self.tensor(t.coefficient),
            t.fn,
            tuple(self.latent(g) for g in t.gs),
            tuple(self.tensor(p) for p in t.thetas),
            t.over,
        )

    def _leaf(self, x: Vector) -> list[LimitTerm]:
        """An X-leaf as Σ_m a_m X_m."""
        found = ((leaf, leaf.store) for leaf in self.leaves(x))
        return [LimitTerm(leaf.coefficients, s.fn, leaf.columns, leaf.thetas, (s.atom,)) for leaf, s in found]

    def leaves(self, x: Vector) -> Iterator[Leaf]:
        """The sums over atoms that an X-leaf consists of, one per store."""
        x, moves = moves_of(x)
        if isinstance(x, ir.VectorWeight):  # v = (1/n) Aᵀ X
            for s in self.stores[x.name]:
                yield Leaf(s, moves)
        elif isinstance(x, ir.MatMul) and isinstance(x.matrix, ir.Transpose):  # Wᵀ y = Σ_m ⟨A_m, E z y(z)⟩ X_m
            w = x.matrix.arg
            assert isinstance(w, ir.MatrixWeight)
            y = reduce(lambda t, move: moved(move, t), moves, self.latent(x.x))
            for s in self.stores[w.name]:
                yield Leaf(s, moves, y)
        else:
            raise InternalError(f"{type(x).__name__} is not a leaf of a normal form")


def _form(w: AnyWeight, t: Term) -> tuple[Expr, int, int, Axes]:
    """What tells the stores of a weight apart: function, latents, parameters, and the axes the atoms share with it."""
    axes = union(*(v.axes for v in (*t.gs, *t.thetas)))
    return t.fn, len(t.gs), len(t.thetas), stored(tuple(a for a in w.axes if a in axes))
