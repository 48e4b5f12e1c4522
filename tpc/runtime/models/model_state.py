"""The state of a model as arrays by name, and back, bit for bit.

`<layer>.A` has every multiplier applied. Where atoms have multipliers, rows without them are in `<layer>.stored` and
the multipliers in `<layer>.scale`, one number or one for every atom; with momentum `<layer>.velocity` is each atom's
share of it, and `<array>.velocity` that of an accumulated array. Folded atoms are the packed tensors `<layer>.M0`,
`<layer>.M1`, … (backends/powers.py), read with the weights `<layer>.w`, and the values `<layer>.T` at the points
`<layer>.Z`; `<layer>.folds` and `<layer>.sums` say what was folded: multiplier, number, weights, and sums over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError
from tpc.limits.power import packed_size
from tpc.limits.store import Fold, Store
from tpc.lower.places import COEFFICIENTS, MULTIPLIER, columns, moment_column
from tpc.runtime.models.arguments import check_range, check_shape, real_array, unknown_name
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.initial import shape_of

Array = NDArray[Any]
LOAD_ROWS = 8192
UNIT_ERRORS = 64  # rounding errors that the length of a unit vector may have
STORED_EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # the largest relative rounding error
LARGEST = {"bfloat16": 3.3895e38, "float16": 65504.0}  # numbers of 16 bits


# --- arrays of a model -----------------------------------------------------------------------------------------------


def state_of(model: ModelBase) -> dict[str, Array]:
    """Copies of the arrays of a model, as NumPy arrays."""
    found: dict[str, Array] = {}
    raw, host = model.raw_state, model.backend.to_numpy
    for u in model.graph.accumulated:
        for name in (u.state.name, f"{u.state.name}.velocity"):
            if name in raw:
                found[name] = host(raw[name]).copy()
    for s in model.graph.stores:
        atoms = raw[s.name]
        found |= {column.name: atoms.column(name) for name, column in columns(s).items()}
        if atoms.per_atom or atoms.scale != 1:
            found |= {f"{s.name}.{name}": value for name, value in atoms.multipliers().items()}
    for f in model.folds.values():
        found |= _folded(model, f)
    return found


def _folded(model: ModelBase, f: Fold) -> dict[str, Array]:
    name, host = f.store.name, model.backend.to_numpy
    moments = model.raw_state[f"{name}.folded"]
    found = {f"{name}.w": moments.scale * moments.weights}
    found[f"{name}.folds"] = np.array([moments.scale, moments.count, *moments.weights])
    found[f"{name}.sums"] = moments.sums.copy()
    found |= {m.state.name: host(moments.moment(m.order)).copy() for m in f.moments}
    if f.tail:
        found[f.tail.points.name] = host(moments.points).copy()
        found[f.tail.values.name] = host(moments.tail) * moments.dtype.type(moments.scale)
        if moments.scale != 1:
            found[f"{f.tail.values.name}.stored"] = host(moments.tail).copy()
    return found


# --- a model of arrays -----------------------------------------------------------------------------------------------


def loaded_state(model: ModelBase, arrays: Mapping[str, ArrayLike]) -> tuple[dict[str, Any], bool]:
    """A whole state of the backend, and whether there is momentum in it; the model stays as it is.

    Raises UsageError for missing or unknown names, wrong shapes and numbers that are not finite or do not fit.
    """
    return _Loading(model, arrays).state()


class _Loading:
    def __init__(self, model: ModelBase, arrays: Mapping[str, ArrayLike]) -> None:
        if not isinstance(arrays, Mapping):
            raise UsageError(f"expected the arrays of a state by name, as state() gives them, got {arrays!r}")
        self.model = model
        self.graph = model.graph
        self.given = {name: real_array(value, str(name)) for name, value in arrays.items()}
        self.momentum = any(str(name).endswith(".velocity") for name in self.given)
        self._check_names()
        for name, value in self.given.items():
            check_range(name, value, self._kind(name))

    def _check_names(self) -> None:
        stores, folds = self.graph.stores, self.model.folds.values()
        accumulated = [u.state.name for u in self.graph.accumulated]
        needed = [*accumulated, *(c.name for s in stores for c in columns(s).values())]
        more = [f"{s.name}.{name}" for s in stores for name in ("scale", "stored")]
        velocities = [f"{name}.velocity" for name in (*accumulated, *(s.name for s in stores))]
        folded = [name for f in folds for name in _folded_names(f)]
        tails = [f"{f.tail.values.name}.stored" for f in folds if f.tail]
        known = [*needed, *more, *velocities, *folded, *tails]
        for name in self.given:
            if name not in known:
                raise UsageError(unknown_name(name, known, "array in the state"))
        missing = [name for name in needed if name not in self.given]
        if self.momentum:
            wanted = [*velocities, *more]
            missing += [name for name in wanted if name not in self.given]
        elif any(name in self.given for name in more):
            kept = [s.name for s in stores if f"{s.name}.scale" in self.given or f"{s.name}.stored" in self.given]
            missing += [n for s in kept for n in (f"{s}.scale", f"{s}.stored") if n not in self.given]
        if any(name in self.given for name in (*folded, *tails)):
            missing += [name for name in folded if name not in self.given]
        if missing:
            raise UsageError(f"expected the arrays {', '.join(needed)} in the state; missing: {', '.join(missing)}")

    def _kind(self, name: str) -> str:
        """The type that holds an array: multipliers and sums are always float64."""
        return "float64" if name.endswith((".scale", ".velocity", ".sums", ".folds", ".w")) else self.model.dtype

    def _fits(self, name: str, value: Array) -> None:
        """Raise UsageError where stored latents have no room for a number; coefficients have units of their own."""
        storage = self.model.storage
        if storage in LARGEST and math.prod(value.shape[1:]) > 1:
            check_range(name, value, storage, LARGEST[storage])

    def state(self) -> tuple[dict[str, Any], bool]:
        model = self.model
        new: dict[str, Any] = {}
        for u in self.graph.accumulated:
            shape = shape_of(u.state.axes, model.sizes, model.rank)
            for name in (u.state.name, f"{u.state.name}.velocity"):
                if name in self.given:
                    check_shape(name, self.given[name], shape)
                    new[name] = model.backend.array(self.given[name].copy(), model.dtype)
        for s in self.graph.stores:
            new[s.name] = self._store(s)
        for f in model.folds.values():
            new[f"{f.store.name}.folded"] = self._moments(f)
        return new, self.momentum

    # --- stored atoms -------------------------------------------------------------------------------------------

    def _store(self, s: Store) -> Any:
        model, given = self.model, self.given
        count = next(iter(given[s.coefficients.name].shape), 0)
        for c in (s.coefficients, *s.columns, *s.thetas):
            check_shape(c.name, given[c.name], (count, *shape_of(c.axes[1:], model.sizes, model.rank)))
            if c is not s.coefficients:
                self._fits(c.name, given[c.name])
        if f"{s.name}.scale" in given:
            return self._exact(s, count)
        atoms = model.backend.new_atoms(model.widths(s), model.dtype, False, model.storage, model.segment_rows)
        for start in range(0, count, LOAD_ROWS):
            rows = slice(start, start + LOAD_ROWS)
            values = {name: given[c.name][rows].astype(np.float64) for name, c in columns(s).items()}
            if s.degree is not None:
                self._normalise(values, s, s.degree)
            atoms.extend({n: model.backend.array(v, model.dtype) for n, v in values.items()})
        return atoms

    def _exact(self, s: Store, count: int) -> Any:
        """Atoms as `state_of` found them."""
        model, name = self.model, s.name
        stored, scale = self.given[f"{name}.stored"], self.given[f"{name}.scale"].astype(np.float64)
        check_shape(f"{name}.stored", stored, self.given[s.coefficients.name].shape)
        check_shape(f"{name}.scale", scale, (count,) if self.momentum else (1,))
        found = {name: self.given[c.name] for name, c in columns(s).items()} | {COEFFICIENTS: stored}
        self._check_applied(s, stored, scale)
        if s.degree is not None:
            self._check_unit(s)
        if self.momentum:
            velocity = self.given[f"{name}.velocity"].astype(np.float64)
            check_shape(f"{name}.velocity", velocity, (count,))
            found |= {"scales": scale, "velocities": velocity}
        else:
            found[MULTIPLIER] = scale
        read: Callable[[str], Array | None] = {n: self._typed(n, v) for n, v in found.items()}.get
        return model.backend.restore_atoms(
            read, model.widths(s), model.dtype, model.storage, model.segment_rows
        )  # fmt: skip

    def _typed(self, column: str, value: Array) -> Array:
        if column in ("scale", "scales", "velocities"):
            return value
        if column == "A" and self.model.storage == "float16":
            with np.errstate(over="ignore"):
                narrow = value.astype(np.float16)
            if (narrow == value).all():  # then the units are right as they are
                return narrow
        return value.astype(self.model.dtype, copy=False)

    def _check_applied(self, s: Store, stored: Array, scale: Array) -> None:
        """Raise UsageError where coefficients are not their multipliers times what is stored."""
        a = self.given[s.coefficients.name]
        kinds = [t for t in (a.dtype, stored.dtype, np.dtype(self.model.dtype)) if t.kind == "f"]
        eps = max(float(np.finfo(t).eps) for t in kinds)
        for rows in _blocks(len(a)):
            factor = scale[rows] if self.momentum else scale
            made = stored[rows] * factor.reshape(-1, *[1] * (a.ndim - 1))
            if not np.allclose(made, a[rows], rtol=8 * eps, atol=float(np.finfo(self.model.dtype).tiny)):
                raise UsageError(
                    f"expected {s.coefficients.name} to be {s.name}.scale times {s.name}.stored, got something else; "
                    f"to load other coefficients, leave {s.name}.scale and {s.name}.stored out"
                    + (", and all that ends in .velocity" if self.momentum else "")
                )

    # --- unit vectors -------------------------------------------------------------------------------------------

    def _tolerance(self) -> float:
        """How far the length of a stored unit vector may be off."""
        model = self.model
        return STORED_EPS.get(model.storage, 0.0) + (UNIT_ERRORS + model.rank) * float(np.finfo(model.dtype).eps)

    def _normalise(self, values: dict[str, Array], s: Store, degree: int) -> None:
        """Rows become unit vectors, their norm goes into the coefficient."""
        norm = np.linalg.norm(values["B"], axis=-1, keepdims=True)
        off = np.abs(norm - 1) > self._tolerance()
        factor = np.where(off, norm, 1.0)
        values["B"] = np.divide(values["B"], factor, out=values["B"], where=factor > 0)
        shape = zip(s.coefficients.axes, values["A"].shape)
        shared = [n if k == 0 or a in s.tied else 1 for k, (a, n) in enumerate(shape)]
        values["A"] = values["A"] * (factor**degree).reshape(shared)

    def _check_unit(self, s: Store) -> None:
        for c in s.columns:
            for rows in _blocks(len(self.given[c.name])):
                norm = np.linalg.norm(self.given[c.name][rows].astype(np.float64), axis=-1)
                if ((np.abs(norm - 1) > self._tolerance()) & (norm > 0)).any():
                    raise UsageError(
                        f"expected rows of length 1 in {c.name}, as they are stored; leave {s.name}.scale and "
                        f"{s.name}.stored out to have rows scaled"
                    )

    # --- folded atoms -------------------------------------------------------------------------------------------

    def _moments(self, f: Fold) -> Any:
        model, name, given = self.model, f.store.name, self.given
        fold = model.fold
        shapes = model.moment_shapes(f)
        if f"{name}.folds" not in given:
            rule = fold.window, fold.fitted, f.points
            return model.backend.new_moments(*shapes, model.dtype, *rule, storage=model.storage)
        for each, shape in folded_shapes(model, f).items():
            if each in given:
                check_shape(each, given[each], shape)
        scale, count, *weights = (float(v) for v in given[f"{name}.folds"])
        if not (count >= 0 and count == int(count) and scale != 0):
            raise UsageError(f"expected {name}.folds to be a multiplier, a number and weights, got {scale}, {count}")
        if not np.allclose(given[f"{name}.w"], scale * np.array(weights), rtol=1e-12, atol=0):
            raise UsageError(f"expected {name}.w to be the first number of {name}.folds times its weights")
        columns = {moment_column(m.order): given[m.state.name] for m in f.moments}
        columns |= {"weights": np.array(weights), "sums": given[f"{name}.sums"].astype(np.float64)}
        columns["numbers"] = np.array([scale, count, fold.window, fold.fitted], np.float64)
        if f.tail:
            columns |= {"Z": given[f.tail.points.name], "T": self._tail(f, scale)}
        read = {n: v.astype(model.dtype) if n[0] in "MZT" else v for n, v in columns.items()}.__getitem__
        return model.backend.restore_moments(read, *shapes, model.dtype, f.points, storage=model.storage)

    def _tail(self, f: Fold, scale: float) -> Array:
        assert f.tail is not None
        name = f.tail.values.name
        values = self.given[name]
        if scale == 1:
            return values
        stored = self.given.get(f"{name}.stored")
        if stored is None:
            return values / scale
        if not np.allclose(stored * scale, values, rtol=1e-5, atol=1e-30):
            raise UsageError(f"expected {name} to be the first number of {f.store.name}.folds times {name}.stored")
        return stored


def folded_shapes(model: ModelBase, f: Fold) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that hold folded atoms."""
    name = f.store.name
    outer, rank, orders = model.moment_shapes(f)
    degrees = len(orders)
    terms = degrees + bool(f.points) + 1
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.w": (degrees,),
        f"{name}.folds": (2 + degrees,),
        f"{name}.sums": (terms, terms),
    }
    for m in f.moments:
        shapes[m.state.name] = (*outer, *((packed_size(rank, m.order),) if m.order else ()))
    if f.tail:
        shapes[f.tail.points.name] = (f.points, rank)
        shapes[f.tail.values.name] = shapes[f"{f.tail.values.name}.stored"] = (f.points, *outer)
    return shapes


def _folded_names(f: Fold) -> list[str]:
    """The arrays of a state that hold folded atoms."""
    tail = (f.tail.points.name, f.tail.values.name) if f.tail else ()
    own = (f"{f.store.name}.{name}" for name in ("w", "folds", "sums"))
    return [*own, *(m.state.name for m in f.moments), *tail]


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + LOAD_ROWS) for start in range(0, count, LOAD_ROWS))
