"""A limit with numbers in it: predict, step, state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError
from tpc.limits.fold import Fold
from tpc.limits.graph import LimitGraph, Store
from tpc.limits.power import packed_size
from tpc.lower.lowered import lower
from tpc.lower.numpy_printer import layout
from tpc.passes.adapt import is_adapted
from tpc.passes.loss import LOSSES
from tpc.program.axes import FEATURE, SAMPLE, without
from tpc.runtime.arguments import (
    check_seed,
    check_shape,
    check_sizes,
    check_step,
    clip_factors,
    input_rows,
    multipliers,
    real_array,
    target_rows,
    unknown_name,
)
from tpc.runtime.backend import load_backend
from tpc.runtime.folding import FoldOptions
from tpc.runtime.initial import initial_state, shape_of
from tpc.runtime.support import BY_SAMPLE, Support, check_given

if TYPE_CHECKING:
    from tpc.compiler import Limit

Array = NDArray[Any]
PREDICT_ROWS = 1024
PREDICT_NUMBERS = 1 << 23
LOAD_ROWS = 8192
DTYPES = ("float32", "float64")
MODES = ("exact", "folded")


def build(
    limit: Limit,
    input_dim: int,
    rank: int,
    *,
    backend: str = "numpy",
    dtype: str = "float32",
    seed: int = 0,
    mode: str = "exact",
    storage: str | None = None,
    init: str = "zero_readout",
    fold: FoldOptions | None = None,
) -> Model:
    """An initialized model of a π-limit with `rank` latent dimensions per space.

    `init` is "zero_readout" or "paper" (readout coefficients N(0,1)/M); `storage` is the number type of stored atoms
    (by default `dtype`); `fold` says how mode "folded" folds. Raises UsageError for values out of range.
    """
    model = Model(limit, input_dim, rank, backend=backend, dtype=dtype, mode=mode, storage=storage, fold=fold)
    check_seed(seed)
    model.load_state(initial_state(limit.graph(), model.sizes, rank, int(seed), init))
    return model


class Model:
    """The state of one limit on one backend. Made by `Limit.build` or `Model.load`."""

    def __init__(
        self,
        limit: Limit,
        input_dim: int,
        rank: int,
        *,
        backend: str = "numpy",
        dtype: str = "float32",
        mode: str = "exact",
        storage: str | None = None,
        fold: FoldOptions | None = None,
    ) -> None:
        check_sizes(input_dim=input_dim, rank=rank)
        self.backend = load_backend(backend)
        self.backend_name = backend
        for name, value, allowed in (
            ("dtype", dtype, self.backend.DTYPES),
            ("mode", mode, MODES),
            ("storage", storage or dtype, tuple(t for t in self.backend.STORAGE if t == dtype or t not in DTYPES)),
        ):
            if value not in allowed:
                raise UsageError(f"expected {name} among {', '.join(allowed)} on the {backend} backend, got {value!r}")
        self.limit = limit
        self.input_dim = int(input_dim)
        self.rank = int(rank)
        self.dtype = dtype
        self.storage = storage or dtype
        self.mode = mode
        if fold is not None and mode != "folded":
            raise UsageError(f"fold options need mode 'folded', got mode {mode!r}")
        self.fold = fold or FoldOptions()
        self._degree: int | None = None
        if mode == "folded":
            self._degree = self.fold.degree_for(limit.graph())
            self.fold = replace(self.fold, degree=self._degree)
        self.sizes = {FEATURE.name: self.input_dim}
        self.graph: LimitGraph = limit.graph(degree=self._degree, points=self.fold.points)
        self.folds = {f.store.name: f for f in self.graph.folds}
        (classes,) = without(self.graph["logits"].axes, (SAMPLE,))
        self.classes = int(classes.size or 0)
        self.adapts = is_adapted(limit.program)
        self._stores = {s.name: s for s in self.graph.stores}
        self._state: dict[str, Any] = {}
        self._momentum = False
        self._modules: dict[tuple[str, bool], ModuleType] = {}

    # --- description -------------------------------------------------------------------------------------------

    @property
    def size(self) -> str:
        """The dimension of its latents, in words."""
        return f"rank {self.rank}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The names that `lr_mult` takes."""
        return tuple(name for name, _ in self.graph.updates)

    @property
    def atoms(self) -> dict[str, int]:
        """The atoms of every kernel matrix, folded ones included."""
        folded = {name: self._state[f"{name}.folded"].count for name in self.folds}
        return {name: len(self._state[name]) + folded.get(name, 0) for name in self._stores}

    @property
    def remainders(self) -> dict[str, float]:
        """Relative root-mean-square error of the folded kernels over the atoms folded lately."""
        found = {name: self._state[f"{name}.folded"].remainder for name in self.folds}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(int(v.nbytes) for v in self._state.values())

    @property
    def described(self) -> str:
        """Limit, sizes, backend and atoms, in words."""
        kind = "π" if self.limit.kind == "pi" else self.limit.kind
        sizes = f"{self.size}, {self.input_dim} inputs, {self.classes} outputs"
        told = f"{kind}-limit of {self.limit.program.name}: {sizes}, {self.backend_name}, {self.dtype}, {self.mode}"
        if not self._state:
            return f"{told}, without a state"
        return told + "".join(f", {count} atoms of {name}" for name, count in self.atoms.items())

    def arrays(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and number type of every array of the state."""
        if not self._state:
            return []
        found = [
            (u.state.name, tuple(self._state[u.state.name].shape), str(self._state[u.state.name].dtype))
            for u in self.graph.accumulated
        ]
        for s in self._stores.values():
            atoms = self._state[s.name]
            for column in (s.coefficients, *s.columns, *s.thetas):
                width = tuple(atoms.widths[_short(s, column.name)])
                kind = self.storage if math.prod(width) > 1 else self.dtype
                found.append((column.name, (len(atoms), *width), kind))
        for name, f in self.folds.items():
            moments = self._state[f"{name}.folded"]
            kept = {m.state.name: moments.moment(m.order) for m in f.moments}
            found += [(n, tuple(v.shape), str(v.dtype)) for n, v in {f"{name}.w": moments.weights, **kept}.items()]
        return found

    def __repr__(self) -> str:
        return f"<Model: {self.described}>"

    def _repr_html_(self) -> str:
        from tpc.report.notebook import model_html

        return model_html(self)

    def _module(self, loss: str) -> ModuleType:
        _check_loss(loss)
        key = (loss, self._momentum)
        if key not in self._modules:
            points = self.fold.points
            graph = self.limit.graph(loss, self._degree, self.backend.HALVES, points)
            lowered = lower(graph, self._momentum, self.limit.graph(loss, self._degree, points=points))
            self._modules[key] = self.backend.compile_module(lowered)
        return self._modules[key]

    def prepare(self, loss: str) -> None:
        """Compile what a step runs. Raises UsageError for an unknown loss."""
        self._module(loss)

    # --- running -----------------------------------------------------------------------------------------------

    def predict(self, x: ArrayLike, support: Support | None = None) -> Array:
        """Logits of `x`, (N, input_dim) → (N, classes); an adapted network learns from `support` first."""
        rows = self._inputs(x)
        data = {"x": rows, **self._support(support, len(rows))}
        run = self._module("cross_entropy").predict
        with np.errstate(all="ignore"):  # a diverged model has no finite logits
            size = self.predict_rows
            parts = [
                run(self._state, **_taken(run, {n: v[i : i + size] if n in BY_SAMPLE else v for n, v in data.items()}))
                for i in range(0, len(rows), size)
            ]
        return (
            np.concatenate([self.backend.to_numpy(p["logits"]) for p in parts])
            if parts
            else np.empty((0, self.classes), self.dtype)
        )

    @property
    def predict_rows(self) -> int:
        """Rows predicted at a time: their packed powers take no more memory than what they are multiplied with."""
        return predicted_rows(self.folds.values(), self.rank)

    def step(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        lr: float,
        lr_mult: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
        decay_follows_lr_mult: bool = False,
        momentum: float = 0.0,
        clip: float | None = None,
        clip_mode: str = "param",
        loss: str = "cross_entropy",
        support: Support | None = None,
    ) -> dict[str, Any]:
        """One SGD step on a batch; returns its loss and accuracy before the update (and gradient norms if clipped).

        For every weight m ← momentum·m + ∇ and W ← (1 - lr·decay)·W - lr·mult·m, ∇ scaled by min(1, clip/(norm + 1e-6))
        with the norm of each weight ("param") or of all together ("global"). Decay is lr·λ, times the weight's
        multiplier with `decay_follows_lr_mult`. `y` holds class numbers or one row of targets per sample. An adapted
        network learns from `support` first; its loss is the mean over the samples of a task, summed over tasks.
        """
        mult = multipliers(lr_mult or {}, self.weights)
        check_step(lr, weight_decay, momentum, clip, clip_mode)
        rows = self._inputs(x)
        if not len(rows):
            raise UsageError("expected at least one sample in a batch, got none")
        wanted = self._targets(y, len(rows))
        targets = self.backend.array(wanted, self.dtype)
        data = {"x": rows, "y": targets, **self._support(support, len(rows))}
        _check_loss(loss)
        if momentum and not self._momentum:
            self._start_momentum()
        module = self._module(loss)
        with np.errstate(all="ignore"):  # a step that diverges is told by its loss
            out = module.gradients(self._state, **_taken(module.gradients, data))
            squares = {} if clip is None else self._squared_norms(module, out, data)
            (value, *sizes), finite = self.backend.inspect([out["loss"], *squares.values()], self._appended(out))
            guess = self.backend.to_numpy(out["logits"]).argmax(axis=1)
            metrics: dict[str, Any] = {"loss": value, "accuracy": float(np.mean(guess == wanted.argmax(axis=1)))}
            scales = dict.fromkeys(self.weights, 1.0)
            if clip is not None:
                norms = {name: math.sqrt(max(0.0, size)) for name, size in zip(squares, sizes)}
                metrics["grad_norm"] = norms
                scales = clip_factors(norms, clip, clip_mode)
            rate = {w: lr * mult[w] for w in self.weights}
            keep = {w: 1 - lr * weight_decay * (mult[w] if decay_follows_lr_mult else 1) for w in self.weights}
            if math.isfinite(value) and finite:  # else the state stays as it was
                module.update(self._state, out, rate, scales, keep, momentum)
                if self.folds:
                    module.fold(self._state)
        return metrics

    def _squared_norms(self, module: ModuleType, out: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        arguments = [data[key] if key in data else out[key] for key in module.NORM_ARGUMENTS]
        squares: dict[str, Any] = module.norms(self._state, *arguments)
        return squares

    def _appended(self, out: Mapping[str, Any]) -> list[Any]:
        """What a step appends; where it is finite, so are the accumulated gradients in exact mode."""
        return [v for key, v in out.items() if ":" in key and (self.folds or not key.endswith(":gradient"))]

    def _start_momentum(self) -> None:
        self._momentum = True
        for name in self._stores:
            self._state[name].with_momentum()

    # --- arguments ---------------------------------------------------------------------------------------------

    def _inputs(self, x: ArrayLike) -> Any:
        rows = input_rows(x, self.input_dim)
        return self.backend.array(rows, self.dtype)

    def _support(self, support: Support | None, samples: int) -> dict[str, Any]:
        """What an adapted network takes besides its samples."""
        check_given(support, self.adapts)
        if support is None:
            return {}
        x = self._inputs(support.x)
        if not len(x):
            raise UsageError("expected at least one support sample, got none")
        weights = {name: self.backend.array(v, self.dtype) for name, v in support.weights(samples).items()}
        targets = self.backend.array(self._targets(support.y, len(x)), self.dtype)
        return {"x_support": x, "y_support": targets, **weights}

    def _targets(self, y: ArrayLike, n: int) -> Array:
        return target_rows(y, n, self.classes)

    # --- state -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Arrays by name; `<layer>.A` has every multiplier applied.

        A folded model has the newest atoms in `<layer>.A` and `<layer>.B`, the others in `<layer>.M0`, `<layer>.M1`, …
        (packed, backends/powers.py), which are read with the weights `<layer>.w`, and what they leave out as values
        `<layer>.T` at the points `<layer>.Z`.
        """
        found: dict[str, Array] = {}
        for u in self.graph.accumulated:
            found[u.state.name] = self.backend.to_numpy(self._state[u.state.name]).copy()
        for s in self._stores.values():
            for column in (s.coefficients, *s.columns, *s.thetas):
                found[column.name] = self._state[s.name].column(_short(s, column.name))
        for name, f in self.folds.items():
            moments = self._state[f"{name}.folded"]
            found[f"{name}.w"] = moments.weights.copy()
            for m in f.moments:
                found[m.state.name] = self.backend.to_numpy(moments.moment(m.order)) * moments.scale
            if f.tail:
                found[f.tail.points.name] = self.backend.to_numpy(moments.points).copy()
                found[f.tail.values.name] = self.backend.to_numpy(moments.tail) * moments.scale
        return found

    def load_state(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Replace the whole state; momentum starts at zero.

        Raises UsageError for missing or unknown names and wrong shapes, and leaves the state as it was.
        """
        given = {name: real_array(value, name) for name, value in arrays.items()}
        expected = [u.state.name for u in self.graph.accumulated]
        expected += [c.name for s in self._stores.values() for c in (s.coefficients, *s.columns, *s.thetas)]
        folded = [n for f in self.folds.values() for n in _folded_names(f)]
        for name in given:
            if name not in expected and name not in folded:
                raise UsageError(unknown_name(name, expected + folded, "array in the state"))
        missing = [name for name in expected if name not in given]
        if any(name in given for name in folded):
            missing += [name for name in folded if name not in given]
        if missing:
            raise UsageError(f"expected the arrays {', '.join(expected)} in the state; missing: {', '.join(missing)}")
        new: dict[str, Any] = {}
        for u in self.graph.accumulated:
            shape = shape_of(u.state.axes, self.sizes, self.rank)
            check_shape(u.state.name, given[u.state.name], shape)
            new[u.state.name] = self.backend.array(given[u.state.name].copy(), self.dtype)
        for s in self._stores.values():
            new[s.name] = self._loaded_store(s, given)
        for f in self.folds.values():
            new[f"{f.store.name}.folded"] = self._loaded_moments(f, given)
        self._state = new
        self._momentum = False
        if self.folds:
            self._module("cross_entropy").fold(new)

    def _loaded_moments(self, f: Fold, given: Mapping[str, Array]) -> Any:
        rule = self.fold.window, self.fold.fitted, f.points
        moments = self.backend.new_moments(*self.moment_shapes(f), self.dtype, *rule, storage=self.storage)
        targets = {m.state.name: moments.moment(m.order) for m in f.moments}
        if f.tail:
            targets |= {f.tail.points.name: moments.points, f.tail.values.name: moments.tail}
        for name, target in targets.items():
            if name in given:
                check_shape(name, given[name], target.shape)
                target[...] = self.backend.array(given[name], self.dtype)
        weights = f"{f.store.name}.w"
        if weights in given:
            check_shape(weights, given[weights], (len(f.moments),))
            moments.weights = given[weights].astype(np.float64)
        return moments

    def moment_shapes(self, f: Fold) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """Lengths of the outer axes, rank, degrees."""
        outer = shape_of(layout(f.store.coefficients.axes[1:]), self.sizes, self.rank)
        return outer, self.rank, tuple(m.order for m in f.moments)

    def _loaded_store(self, s: Store, given: Mapping[str, Array]) -> Any:
        columns = (s.coefficients, *s.columns, *s.thetas)
        count = next(iter(given[s.coefficients.name].shape), 0)
        for c in columns:
            check_shape(c.name, given[c.name], (count, *shape_of(c.axes[1:], self.sizes, self.rank)))
        atoms = self.backend.new_atoms(self.widths(s), self.dtype, False, self.storage, self.segment_rows)
        for start in range(0, count, LOAD_ROWS):
            values = {_short(s, c.name): given[c.name][start : start + LOAD_ROWS].astype(np.float64) for c in columns}
            if s.degree is not None:
                self._normalise(values, s.degree)
            atoms.extend({n: self.backend.array(v, self.dtype) for n, v in values.items()})
        return atoms

    def _normalise(self, values: dict[str, Array], degree: int) -> None:
        """Rows become unit vectors, their norm goes into the coefficient."""
        norm = np.linalg.norm(values["B"], axis=-1, keepdims=True)
        off = np.abs(norm - 1) > 4 * np.finfo(self.dtype).eps
        factor = np.where(off, norm, 1.0)
        values["B"] = np.divide(values["B"], factor, out=values["B"], where=factor > 0)
        values["A"] = values["A"] * (factor**degree).reshape(-1, *[1] * (values["A"].ndim - 1))

    @property
    def segment_rows(self) -> int | None:
        """A folded store is cut into the segments it is folded by."""
        return self.fold.rows if self.folds else None

    @property
    def raw_state(self) -> Mapping[str, Any]:
        """What the backend works on: arrays, stored atoms, folded tensors."""
        return self._state

    @property
    def has_momentum(self) -> bool:
        """Whether a step with momentum was taken."""
        return self._momentum

    def restore(self, state: dict[str, Any], momentum: bool) -> None:
        """Take over a whole state of the backend."""
        self._state, self._momentum = state, momentum

    def widths(self, s: Store) -> dict[str, tuple[int, ...]]:
        """Shapes of the rows of a store's columns."""
        columns = (s.coefficients, *s.columns, *s.thetas)
        return {_short(s, c.name): shape_of(c.axes[1:], self.sizes, self.rank) for c in columns}

    def save(self, path: str | Path) -> None:
        """Write everything to one .npz file: the program's listing, dimensions and the exact state."""
        from tpc.runtime.saving import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path, backend: str | None = None) -> Model:
        """A model from a file written by `save`, on any backend. Raises DataError for a damaged file."""
        from tpc.runtime.saving import load

        return load(cls, path, backend)


def predicted_rows(folds: Iterable[Fold], rank: int) -> int:
    """Rows predicted at a time: what reading folded tensors makes of them is no larger than the tensors."""
    widest = max((max(1, f.points, *(packed_size(rank, m.order) for m in f.moments)) for f in folds), default=1)
    return max(16, min(PREDICT_ROWS, PREDICT_NUMBERS // widest))


def _folded_names(f: Fold) -> list[str]:
    """The arrays of a state that hold folded atoms."""
    tail = (f.tail.points.name, f.tail.values.name) if f.tail else ()
    return [f"{f.store.name}.w", *(m.state.name for m in f.moments), *tail]


def _check_loss(loss: str) -> None:
    if loss not in LOSSES:
        raise UsageError(f"expected a loss among {', '.join(LOSSES)}, got {loss!r}")


def _taken(run: Callable[..., Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a generated function takes."""
    code = inspect.unwrap(run).__code__
    return {name: data[name] for name in code.co_varnames[1 : code.co_argcount]}


def _short(s: Store, column: str) -> str:
    return column.removeprefix(f"{s.name}.")
