"""Interned, immutable nodes: equal nodes are the same object, so sharing needs no search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TypeVar, dataclass_transform
from weakref import WeakValueDictionary

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


class Node(metaclass=_Interning):
    """One value of a program; compared and hashed by identity."""

    __slots__ = ()

    def __repr__(self) -> str:
        name = getattr(self, "name", "")
        return f"<{type(self).__name__}{' ' + name if name else ''}>"

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        return self

    def derive(self) -> None:
        """Find what follows from the operands, while it is at hand: later it would take a deep recursion."""

    @property
    def operands(self) -> tuple[Node, ...]:
        """The nodes this one is computed from, in order."""
        found: list[Node] = []
        for name in _fields(type(self)):
            value = getattr(self, name)
            if isinstance(value, Node | tuple):
                _collect(value, found)
        return tuple(found)


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

    def mapped(value: Any) -> Any:
        if isinstance(value, Node):
            return image(value)
        if isinstance(value, tuple):
            return tuple(mapped(item) for item in value)
        return value

    old = [getattr(original, name) for name in _fields(type(original))]
    new = [mapped(value) for value in old]
    if all(a is b or a == b for a, b in zip(old, new)):
        return original
    made: Node = type(original)(*new)
    return made
