"""Finite axes and width axes (spaces)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Axis:
    """A finite axis, known by its name.

    `size` is None while it is symbolic (data binds it). `role` is "finite" in programs; a limit adds
    "rank" axes (one per space) and "atom" axes (one per store of a kernel matrix).
    A primed copy (sample') ranges over the same values independently.
    """

    name: str
    size: int | None = None
    role: str = "finite"

    @property
    def base(self) -> str:
        """The name without primes; axes of one base have one size."""
        return self.name.rstrip("'")

    def primed(self) -> Axis:
        return replace(self, name=self.name + "'")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Space:
    """One width axis: the vectors of a space have one value per neuron of it."""

    name: str

    def __str__(self) -> str:
        return self.name


Axes = tuple[Axis, ...]

SAMPLE = Axis("sample")
FEATURE = Axis("feature")
SUPPORT = Axis("support")  # the samples an adapted network has learned from


def union(*groups: Iterable[Axis]) -> Axes:
    """The axes of all groups, each once, in order of first appearance."""
    return tuple(dict.fromkeys(axis for group in groups for axis in group))


def without(axes: Iterable[Axis], removed: Iterable[Axis]) -> Axes:
    gone = set(removed)
    return tuple(axis for axis in axes if axis not in gone)


def fresh(axis: Axis, taken: Iterable[Axis]) -> Axis:
    """A primed copy of `axis` that none of `taken` is."""
    used = set(taken)
    while axis in used:
        axis = axis.primed()
    return axis


def effective(pairs: Mapping[Axis, Axis], axes: Axes) -> dict[Axis, Axis]:
    """The renamings that change something of `axes`."""
    return {a: b for a, b in pairs.items() if a != b and a in axes}


def ordered(pairs: Mapping[Axis, Axis]) -> tuple[tuple[Axis, Axis], ...]:
    """A renaming as the field of an instruction: equal ones are the same."""
    return tuple(sorted(pairs.items(), key=lambda p: p[0].name))


def after(first: Iterable[tuple[Axis, Axis]], second: Mapping[Axis, Axis]) -> dict[Axis, Axis]:
    """One renaming that does `first` and then `second`."""
    start = dict(first)
    merged = {a: second.get(b, b) for a, b in start.items()}
    merged.update({a: b for a, b in second.items() if a not in start.values()})
    return merged


def apart(bound: Iterable[Axis], taken: Iterable[Axis], own: Iterable[Axis] = ()) -> dict[Axis, Axis]:
    """New names for those of the bound axes that are taken, unlike each other and all of `own`."""
    used = set(taken)
    known = {*used, *bound, *own}
    new: dict[Axis, Axis] = {}
    for a in bound:
        if a in used:
            new[a] = fresh(a.primed(), known)
            known.add(new[a])
    return new
