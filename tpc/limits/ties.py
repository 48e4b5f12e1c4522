"""Where second moments vanish: components of one weight are independent, so places that read them must be the same.

    E x[p] y[p'] = 0 unless p = p'

is known of a readout with a weight for every position, and then of all gradients that come of it; sums over p and p'
are then one sum, and nothing is computed at other pairs of places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tpc.limits.views import View, renamed_factors, view
from tpc.passes.normal import Term
from tpc.passes.substitute import Part
from tpc.program import ir
from tpc.program.axes import SAMPLE, Axis, apart, union, without
from tpc.program.ir import Matrix, Vector
from tpc.program.renaming import renamed
from tpc.program.rewrite import Recursion

Pairs = frozenset[tuple[Axis, Axis]]  # an axis of x with one of y
ALL: None = None  # any pairs: the moment is 0


class Ties:
    """Finds the pairs of axes along which a second moment is 0 off the diagonal; remembers what it has found."""

    def __init__(self, parts: Callable[[Vector], list[Part]], terms: Callable[[Vector], tuple[Term, ...]]) -> None:
        self._parts = parts
        self._terms = terms
        self._known: dict[tuple[Vector, Vector], Pairs | None] = {}
        self._recall = Recursion()

    def joined(self, x: Vector, part: Part) -> Part:
        """A part of a sum with those bound axes named after axes of x that must be equal for E x y ≠ 0."""
        d, y, other = part
        if not other:
            return part
        same = self.names(x, y, other, union(d.axes, y.axes))
        return renamed_factors(d, same), ir.rename_vector(y, same), tuple(dict.fromkeys(renamed(other, same)))

    def joined_term(self, s: Term, t: Term) -> Term:
        """The same of a term, whose bound axes differ from those of s."""
        for leaf, other in zip(s.leaves, t.leaves):
            same = self.names(leaf, other, t.over, t.axes)
            t = renamed(t, same)
        return t

    def names(self, x: Vector, y: Vector, bound: Iterable[Axis], taken: Iterable[Axis]) -> dict[Axis, Axis]:
        """New names of axes of y, those of x that they must equal."""
        free = set(bound)
        if not free:  # nothing can be tied: the search, which goes through all layers below, is not worth its time
            return {}
        used = set(taken)
        pairs = self(x, y) or ()
        return {b: a for a, b in sorted(pairs, key=str) if b in free and a not in used}

    def __call__(self, x: Vector, y: Vector) -> Pairs | None:
        """Pairs (a, b) such that E x y = 0 unless a = b; `ALL` where it is 0 anyway."""
        return self._recall(self._known, (x, y), self._found)

    def _found(self, pair: tuple[Vector, Vector]) -> Pairs | None:
        x, y = pair
        if is_sum(x) or is_sum(y):
            return self._of_sums(x, y)
        left, right = view(x), view(y)
        if left is not None or right is not None:
            return self._seen(x, y, left, right)
        if is_base(x) and is_base(y):
            return self._of_bases(x, y)
        return self._of_terms(x, y)

    def _of_sums(self, x: Vector, y: Vector) -> Pairs | None:
        found: Pairs | None = ALL
        for c, a, over in self._parts(x):
            for d, b, other in self._parts(y):
                new = apart(other, union(c.axes, a.axes, over), union(d.axes, b.axes))
                tied = self(a, ir.rename_vector(b, new))
                if tied is not None:
                    found = _both(found, _free(tied, (*over, *renamed(other, new))))
        return found

    def _of_terms(self, x: Vector, y: Vector) -> Pairs | None:
        found: Pairs | None = ALL
        for s in self._terms(x):
            for t in self._terms(y):
                if len(s.leaves) != len(t.leaves):
                    continue
                new = apart(t.over, s.axes, t.axes)
                tied = _same(x, y)
                for a, b in zip(s.leaves, t.leaves):
                    of_leaves = self(a, ir.rename_vector(b, new))
                    if of_leaves is None:
                        break
                    tied |= of_leaves
                else:
                    found = _both(found, _free(tied, (*s.over, *renamed(t.over, new))))
        return found

    def _of_bases(self, x: Vector, y: Vector) -> Pairs | None:
        (v, new), (w, other) = unrenamed(x), unrenamed(y)
        weight = weight_of(v)
        if weight is not weight_of(w) or type(v) is not type(w):
            return ALL
        own = {(new.get(a, a), other.get(a, a)) for a in without(weight.axes, (SAMPLE,))}
        found = _same(x, y) | own
        if isinstance(v, ir.MatMul) and isinstance(w, ir.MatMul):
            same = {b: a for a, b in own if a != b}  # one member of the family, or 0
            inner = self(ir.rename_vector(v.x, new), ir.rename_vector(ir.rename_vector(w.x, other), same))
            back = {a: b for b, a in same.items()}
            return ALL if inner is None else found | {(a, back.get(b, b)) for a, b in inner}
        return found

    def _seen(self, x: Vector, y: Vector, left: View[Vector] | None, right: View[Vector] | None) -> Pairs | None:
        if left is not None:
            left = left.apart((*y.axes, *(right.arg.axes if right is not None else ())))
        if right is not None:
            right = right.apart((*x.axes, *(left.arg.axes if left is not None else ())))
        inner = self(left.arg if left is not None else x, right.arg if right is not None else y)
        if inner is None:
            return ALL
        bound = [v.bound for v in (left, right) if v is not None]
        found = _same(x, y) | _free(inner, bound)
        if left is None or right is None or left.back != right.back or left.window.geometry != right.window.geometry:
            return found
        offsets = (left.window.offset, right.window.offset)
        if (left.bound, right.bound) in inner and offsets in found and left.is_injective:
            found |= {(left.place, right.place)}
        return found


def unrenamed(x: Vector) -> tuple[Vector, dict[Axis, Axis]]:
    """A vector with the renaming that is its last instruction."""
    return (x.arg, dict(x.pairs)) if isinstance(x, ir.RenameVector) else (x, {})


def is_sum(x: Vector) -> bool:
    return isinstance(unrenamed(x)[0], ir.LinComb)


def is_base(x: Vector) -> bool:
    """A weight or a product with one, under whatever names."""
    return isinstance(unrenamed(x)[0], ir.VectorWeight | ir.MatMul)


def weight_of(x: Vector) -> ir.VectorWeight | Matrix:
    """The weight of a base."""
    assert isinstance(x, ir.VectorWeight | ir.MatMul)
    return x.matrix if isinstance(x, ir.MatMul) else x


def seen_base(x: Vector) -> Vector:
    """What is left of a vector without renamings and windows."""
    while True:
        inner, _ = unrenamed(x)
        seen = view(inner)
        if seen is None:
            return inner
        x = seen.arg


def _same(x: Vector, y: Vector) -> Pairs:
    return frozenset((a, a) for a in x.axes if a in y.axes)


def _free(pairs: Pairs, bound: Iterable[Axis]) -> Pairs:
    gone = set(bound)
    return frozenset((a, b) for a, b in pairs if a not in gone and b not in gone)


def _both(one: Pairs | None, other: Pairs) -> Pairs:
    return other if one is None else one & other
