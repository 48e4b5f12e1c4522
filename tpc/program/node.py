"""Interned, immutable nodes: equal nodes are the same object, so sharing needs no search.

An instruction is a class of nodes. It declares here what passes need to know of it: its operands, what it does to axes,
and how it is built anew. Verifiers, renamings and rewrites read that, and hold no lists of instructions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar, dataclass_transform
from weakref import WeakValueDictionary

import sympy as sp

from tpc.program.axes import Axes, Axis, union, without

_interned: WeakValueDictionary[tuple[Any, ...], Node] = WeakValueDictionary()

N = TypeVar("N", bound="type[Node]")
V = TypeVar("V")


class _Interning(type):
    """Makes `Class(*fields)` return the one live node with these fields."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        # The class of each field is in the key because 1 == 1.0 == True in Python.
        values = tuple([getattr(made, name) for name in _fields(cls)])
        key = (cls, values, tuple([type(v) for v in values]))
        found = _interned.setdefault(key, made)
        if found is made:
            made.derive()
        return found


@cache
def _fields(cls: type) -> tuple[str, ...]:
    """The names of the fields of a node class, which is a dataclass."""
    return tuple(f.name for f in dataclasses.fields(cls) if f.init)


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Operands whose axes are joined, and the axes that are summed over of what they make together."""

    operands: tuple[Node, ...]
    sums: Axes = ()

    @property
    def joint(self) -> Axes:
        """The axes of the operands together."""
        return union(*(n.axes for n in self.operands))


class Node(metaclass=_Interning):
    """One value of a program; compared and hashed by identity."""

    __slots__ = ("_axes",)
    differentiable: ClassVar[bool] = True  # whether cotangents go on to its operands

    def __repr__(self) -> str:
        name = getattr(self, "name", "")
        return f"<{type(self).__name__}{' ' + name if name else ''}>"

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        return self

    def derive(self) -> None:
        """Find what follows from the operands, while it is at hand: later it would take a deep recursion."""
        _ = self.axes

    # --- what an instruction declares -----------------------------------------------------------------------------

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Its operands by what is summed of them; by default nothing is."""
        return (Scope(self.operands),)

    @property
    def introduces(self) -> Axes:
        """Axes that it has without its operands."""
        return ()

    @property
    def renames(self) -> tuple[tuple[Axis, Axis], ...]:
        """Axes of operands, with the names that they have in it."""
        return ()

    @property
    def counts(self) -> Axes:
        """Axes that it depends on by their length alone."""
        return ()

    @property
    def joins(self) -> Axes:
        """Axes along which a value depends on operands at other places; by default those it sums over."""
        return self.sums

    @property
    def symbols(self) -> tuple[sp.Expr, ...]:
        """The arguments of its functions."""
        return ()

    @classmethod
    def build(cls, *fields: Any) -> Any:
        """An instruction with these fields, or what it comes to."""
        return cls(*fields)

    # --- what follows ---------------------------------------------------------------------------------------------

    @property
    def axes(self) -> Axes:
        """Its finite axes."""
        return kept(self, "_axes", self._find_axes)

    def _find_axes(self) -> Axes:
        found = union(*(without(s.joint, s.sums) for s in self.scopes), self.introduces)
        new = dict(self.renames)
        return tuple(new.get(a, a) for a in found) if new else found

    @property
    def sums(self) -> Axes:
        """The axes that it sums over."""
        return union(*(s.sums for s in self.scopes))

    @property
    def mentions(self) -> Axes:
        """Every axis that it has or names."""
        return union(self.axes, self.counts, self.sums)

    @property
    def operands(self) -> tuple[Node, ...]:
        """The nodes this one is computed from, in order."""
        found: list[Node] = []
        for name in _fields(type(self)):
            value = getattr(self, name)
            if isinstance(value, Node | tuple):
                _collect(value, found)
        return tuple(found)


def fields(n: Node) -> tuple[Any, ...]:
    """The values of the fields of a node, in order."""
    return tuple([getattr(n, name) for name in _fields(type(n))])


def _collect(value: Any, found: list[Node]) -> None:
    if isinstance(value, Node):
        found.append(value)
    elif isinstance(value, tuple):
        for item in value:
            _collect(item, found)


def kept(node: Node, slot: str, compute: Callable[[], V]) -> V:
    """A derived value, computed once and kept in a slot of the node."""
    try:
        value: V = getattr(node, slot)
    except AttributeError:
        value = compute()
        object.__setattr__(node, slot, value)
    return value


@dataclass_transform(frozen_default=True, eq_default=False)
def node(cls: N) -> N:
    """Class decorator: a frozen, slotted dataclass compared by identity."""
    made: Any = dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True, eq=False, repr=False)(cls)
    typed: N = made
    return typed


def topological(roots: Iterable[Node], below: Callable[[Node], Iterable[Node]] | None = None) -> list[Node]:
    """Every node reachable from `roots`, operands first, in a reproducible order; `below` tells what comes before one.

    Without it these are the operands.
    """
    before = below or _operands
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, Iterator[Node]]] = []
        if root not in done:
            done.add(root)
            stack.append((root, iter(before(root))))
        while stack:
            current, rest = stack[-1]
            for operand in rest:
                if operand not in done:
                    done.add(operand)
                    stack.append((operand, iter(before(operand))))
                    break
            else:
                order.append(current)
                stack.pop()
    return order


def _operands(n: Node) -> tuple[Node, ...]:
    return n.operands


def rebuild(original: Node, image: Callable[[Node], Node]) -> Node:
    """`original` with every operand replaced by its image; the same object when nothing changed."""
    old = fields(original)
    new = [_mapped(value, image, {}) for value in old]
    if all(a is b or a == b for a, b in zip(old, new)):
        return original
    made: Node = type(original)(*new)
    return made


def remade(original: Node, image: Callable[[Node], Node], axes: Mapping[Axis, Axis] | None = None) -> Node:
    """The instruction built anew of the images of its operands, which simplifies it; `axes` have new names.

    Data, weights and numbers are themselves.
    """
    if not original.operands and not original.counts:
        return original
    new = [_mapped(value, image, axes or {}) for value in fields(original)]
    made: Node = type(original).build(*new)
    return made


def _mapped(value: Any, image: Callable[[Node], Node], axes: Mapping[Axis, Axis]) -> Any:
    if isinstance(value, Node):
        return image(value)
    if isinstance(value, tuple):
        return tuple([_mapped(item, image, axes) for item in value])
    if not axes:
        return value
    if isinstance(value, Axis):
        return axes.get(value, value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: _mapped(getattr(value, f.name), image, axes) for f in dataclasses.fields(value)}
        )
    return value
