"""Networks of finite width n sampled from a state of the π-limit, trained by projected SGD in μP scaling.

They converge to the limit: after a fixed number of steps the error falls like n^(-1/2) (Yang, Santacroce,
Hu 2022, §3). A step runs the program's own gradient outputs, so nothing here knows any architecture.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.limits.store import Accumulate, Append, Store, Update
from tpc.passes.adapt import is_adapted
from tpc.passes.project import PREFIX
from tpc.program import ir
from tpc.program.axes import SAMPLE, Axes, without
from tpc.program.ir import Vector
from tpc.program.node import Node
from tpc.program.program import AnyWeight, Program
from tpc.program.tensor import Tensor
from tpc.runtime.models.arguments import clip_factors, real_array
from tpc.runtime.models.divergence import not_taken
from tpc.runtime.models.input_shape import sample_axes, shaped
from tpc.runtime.models.step_options import StepOptions, takes_step_options
from tpc.runtime.models.support import Support, check_given
from tpc.runtime.models.targets import check_loss, read_targets
from tpc.runtime.networks.interpret import WIDTH, Value, aligned, contracted, dims, evaluate, numeric
from tpc.runtime.networks.library import library
from tpc.runtime.networks.matrix import F64, Family, LowRank, MatrixValue, Total, total

Draw: TypeAlias = Callable[[str, int, int, int], F64]  # Ω (width, rank) from space, rank, width and seed


def independent_gaussian(space: str, rank: int, width: int, seed: int) -> F64:
    """Ω (width, rank) of a space with independent entries."""
    return np.random.default_rng([seed, width, zlib.crc32(space.encode())]).standard_normal((width, rank))


class FiniteNetwork:
    """A network of width n: Ω_s ~ N(0, 1) of shape (n, r) for every space s, and the weights of a state.

    With U = Ω Aᵀ, bias Ω β, W = (1/n) Ω' Aᵀ X and n·v = Aᵀ X for atoms X_m = fn(Ω B_m), the same steps taken
    here and by the limit lead to the same function as n → ∞. `state` has the arrays of `Model.state()`; `omega`
    holds Ω by space, `weights` arrays (vectors with the width last) and matrices by name. `draw` draws Ω.
    Raises UsageError for a width below the rank and for a state without the limit's arrays.
    """

    def __init__(
        self,
        limit: Derivation,
        state: Mapping[str, ArrayLike],
        width: int,
        seed: int = 0,
        draw: Draw = independent_gaussian,
    ) -> None:
        self.limit = limit
        self.width = width
        graph = limit.graph()
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in state.items()}
        wanted = [u.state.name for u in graph.accumulated]
        wanted += [c.name for s in graph.stores for c in (s.coefficients, *s.columns, *s.thetas)]
        if missing := [name for name in wanted if name not in arrays]:
            raise UsageError(f"expected a state with the arrays {', '.join(wanted)}; missing: {', '.join(missing)}")
        program = limit.trained()
        updates = dict(graph.updates)
        ranks = _ranks(program, updates, arrays)
        if width < (rank := max(ranks.values(), default=1)):
            raise UsageError(f"expected a width of at least the rank {rank}, got {width}")
        self.omega = {space: draw(space, rank, width, seed) for space, rank in ranks.items()}
        self._bases = {space: np.linalg.qr(omega)[0] for space, omega in self.omega.items()}
        self.weights: dict[str, Value] = {
            w.name: _sampled(w, updates[w.name], arrays, self.omega) for w in program.weights
        }
        self._velocity: dict[str, Value] = {}

    def predict(self, x: ArrayLike, support: Support | None = None) -> F64:
        """Logits of `x`, (N, input_dim) → (N, classes); an adapted network learns from `support` first."""
        program = self.limit.trained()
        leaves = {**self.weights, **self._data(program, x, support)}
        return _array(evaluate(program, ["logits"], self.width, leaves, self._bases)["logits"])

    @takes_step_options
    def step(self, x: ArrayLike, y: ArrayLike, *, support: Support | None = None, **options: Any) -> dict[str, float]:
        """One step of projected SGD with the meaning of `Model.step`; returns the loss before it.

        In μP scaling input-like weights and biases learn at rate n·lr, hidden matrices at lr and readouts at
        lr/n; the cotangents of the backward program carry these powers of n.
        """
        chosen = StepOptions(**options)
        check_loss(chosen.loss, self._outputs(self.limit.program))
        names = self._trained_names(chosen.loss)
        rates, keeps = chosen.per_weight(names)
        lr, clip = chosen.lr, chosen.clip
        kinds = ("loss", "grad", "norm2") if clip is not None else ("loss", "grad")
        out = self._evaluated(x, y, chosen.loss, support, kinds)
        value = float(_array(out["loss"]))
        if not math.isfinite(value):
            raise not_taken("loss", "", f"is {value}", value, lr, clip)
        scales = dict.fromkeys(names, 1.0)
        if clip is not None:
            squares = {name: float(_array(out[f"norm2:{name}"])) for name in names}
            for name, square in squares.items():
                if not math.isfinite(square):
                    raise not_taken("the gradient norm", name, f"is {square}", value, lr, clip)
            norms = {name: math.sqrt(max(0.0, square)) for name, square in squares.items()}
            scales = clip_factors(norms, clip, chosen.clip_mode)
        for name in names:
            if not _is_finite(out[f"grad:{name}"]):
                raise not_taken("the gradient", name, "is not finite", value, lr, clip)
        for name in names:
            change = _combined((scales[name], out[f"grad:{name}"]))
            if chosen.momentum:
                earlier = [(chosen.momentum, self._velocity[name])] if name in self._velocity else []
                change = self._velocity[name] = _combined(*earlier, (1.0, change))
            self.weights[name] = _combined((keeps[name], self.weights[name]), (-rates[name], change))
        return {"loss": value}

    def gradients(
        self, x: ArrayLike, y: ArrayLike, loss: str = "cross_entropy", support: Support | None = None
    ) -> dict[str, Value]:
        """The projected gradients of a batch, by weight."""
        out = self._evaluated(x, y, loss, support, ("grad",))
        return {name: out[f"grad:{name}"] for name in self._trained_names(loss)}

    def stepped(self, name: str, gradient: Value, rate: float) -> FiniteNetwork:
        """This network after a step of one weight along a gradient; it stays as it is itself."""
        other = copy(self)
        other.weights = {**self.weights, name: _combined((1.0, self.weights[name]), (-rate, gradient))}
        other._velocity = {}
        return other

    def _trained_names(self, loss: str) -> list[str]:
        program = self.limit.trained(loss)
        return [w.name for w in program.weights if f"grad:{w.name}" in program]

    def _evaluated(
        self, x: ArrayLike, y: ArrayLike, loss: str, support: Support | None, kinds: Iterable[str]
    ) -> dict[str, Value]:
        """The loss, gradients and squared norms of a batch, of the kinds wanted."""
        program = self.limit.trained(loss)
        names = self._trained_names(loss)
        wanted = [key for kind in kinds for key in ([kind] if kind == "loss" else [f"{kind}:{n}" for n in names])]
        data = self._data(program, x, support)
        leaves = {**self.weights, **data, "y": self._targets(program, y, len(data["x"]), loss)}
        with np.errstate(all="ignore"):  # a step tells what diverges
            found = evaluate(program, wanted, self.width, leaves, self._bases)
        weights = {f"{PREFIX}{w.name}": w for w in program.weights}
        return {key: _along(weights[key], program[key], v) if key in weights else v for key, v in found.items()}

    def _data(self, program: Program, x: ArrayLike, support: Support | None) -> dict[str, F64]:
        check_given(support, is_adapted(program))
        rows = shaped(real_array(x, "inputs").astype(np.float64), sample_axes(program))
        if support is None:
            return {"x": rows}
        learned_from = real_array(support.x, "support inputs").astype(np.float64)
        answers = self._targets(program, support.y, len(learned_from), "mse", "support targets")
        learned = {"x_support": learned_from, "y_support": answers}
        return {"x": rows, **learned, **support.weights(len(rows))}

    def _targets(self, program: Program, y: ArrayLike, n: int, loss: str, what: str = "targets") -> F64:
        return np.asarray(read_targets(y, n, self._outputs(program), loss, what).rows, np.float64)

    @staticmethod
    def _outputs(program: Program) -> int:
        (classes,) = without(program.tensor("logits").axes, (SAMPLE,))
        return classes.size or 0


def _ranks(program: Program, updates: Mapping[str, Iterable[Update]], arrays: Mapping[str, F64]) -> dict[str, int]:
    """The rank of every space, as the state has it."""
    found: dict[str, int] = {}
    for w in program.weights:
        for u in updates[w.name]:
            if isinstance(u, Append):
                inner = w.inn if isinstance(w, ir.MatrixWeight) else cast(ir.VectorWeight, w).space
                for c in u.store.columns:
                    found[inner.name] = arrays[c.name].shape[-1]
                if isinstance(w, ir.MatrixWeight):
                    found[w.out.name] = arrays[u.store.coefficients.name].shape[-1]
            elif isinstance(w, ir.VectorWeight):
                found[w.space.name] = arrays[u.state.name].shape[-1]
    return found


def _sampled(w: AnyWeight, updates: Iterable[Update], arrays: Mapping[str, F64], omega: Mapping[str, F64]) -> Value:
    """The weight of width n that a state stands for."""
    stores = {u.store.name: u.store for u in updates if isinstance(u, Append)}.values()
    if isinstance(w, ir.MatrixWeight):
        parts = []
        for s in stores:
            coefficients, atoms = arrays[s.coefficients.name], _atoms(s, arrays, omega[w.inn.name])
            parts.append(_low_rank(w.shape, s, coefficients @ omega[w.out.name].T, atoms))
        return total(parts)
    if isinstance(w, ir.VectorWeight) and w.role == "readout":
        shares = []
        for s in stores:
            atoms = _atoms(s, arrays, omega[w.space.name])
            factors = [(arrays[s.coefficients.name], s.coefficients.axes), (atoms, (s.atom, *s.tied, WIDTH))]
            shares.append(contracted(factors, dims(w), library()))
        return np.asarray(np.sum(shares, axis=0))
    (state,) = (u.state for u in updates if isinstance(u, Accumulate))
    if isinstance(w, ir.VectorWeight):
        return aligned(arrays[state.name] @ omega[w.space.name].T, (*state.axes[:-1], WIDTH), dims(w))
    return aligned(arrays[state.name], state.axes, w.axes)


def _along(w: AnyWeight, gradient: Node, value: Value) -> Value:
    """The gradient of a weight with the dimensions that the weight has."""
    if isinstance(w, ir.MatrixWeight) or not isinstance(gradient, Tensor | Vector):
        return value
    return aligned(_array(value), dims(gradient), dims(w))


def _low_rank(family: Axes, s: Store, left: F64, right: F64) -> MatrixValue:
    """Σ_m left_m ⊗ right_m, for every place of the axes of a family where there is one."""
    if not family:
        return LowRank(left, right)
    have = s.coefficients.axes[1:-1]
    left = np.moveaxis(left, [1 + have.index(a) for a in family], range(len(family)))
    tied = [family.index(a) for a in s.tied]
    members = {
        place: LowRank(left[place], right[(slice(None), *(place[i] for i in tied))])
        for place in np.ndindex(left.shape[: len(family)])
    }
    return Family(family, members)


def _atoms(s: Store, arrays: Mapping[str, F64], omega: F64) -> F64:
    """X_m = fn(Ω B_m; θ_m), shape (M, *tied, n)."""
    columns = [arrays[c.name] @ omega.T for c in s.columns]
    thetas = [arrays[t.name][..., None] for t in s.thetas]
    shape = (len(arrays[s.coefficients.name]), *np.shape(columns[0])[1:-1], len(omega)) if columns else ()
    shape = shape or (len(arrays[s.coefficients.name]), len(omega))
    return np.broadcast_to(numeric(s.fn, len(columns), len(thetas))(*columns, *thetas), shape)


def _combined(*terms: tuple[float, Value]) -> Value:
    """Σ factor · value, of arrays or of matrices."""
    if isinstance(terms[0][1], np.ndarray):
        return np.asarray(np.sum([factor * _array(v) for factor, v in terms], axis=0))
    return total(cast(MatrixValue, v).scaled(factor) for factor, v in terms)


def _is_finite(v: Value) -> bool:
    if isinstance(v, LowRank):
        return bool(np.isfinite(v.left).all() and np.isfinite(v.right).all())
    if isinstance(v, Total):
        return all(map(_is_finite, v.terms))
    return not isinstance(v, np.ndarray) or bool(np.isfinite(v).all())


def _array(v: Value) -> F64:
    return cast(F64, v)
