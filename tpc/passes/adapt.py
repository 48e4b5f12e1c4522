"""Adaptation as part of a program: gradient steps on a support set, before the network answers (MAML, Finn 2017).

The logits of a query are those of the network whose weights took K steps of gradient descent on the support of its
task. Written out with the program's own gradients, the adapted network is a program again, so its outer gradient,
second order included, and its limits need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NoReturn

import sympy as sp

from tpc.errors import ProgramError
from tpc.passes.backward import differentiate
from tpc.passes.loss import LOSSES, per_sample
from tpc.passes.project import outers
from tpc.passes.samples import joined
from tpc.passes.substitute import Increment, Part, Substitution, within
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, SUPPORT, Axis, without
from tpc.program.context import fail, user_line
from tpc.program.functions import argument
from tpc.program.ir import Matrix, Vector
from tpc.program.naming import text
from tpc.program.node import Node, topological
from tpc.program.program import AnyWeight, Program
from tpc.program.renaming import freshened, renamed
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import ONE, Input, Tensor
from tpc.program.trace import Traced, TracedTensor, scalar

OTHER = SUPPORT.primed()
X_SUPPORT = "x_support"
NEAR = {SAMPLE: Input("near", (SAMPLE, SUPPORT)), SUPPORT: Input("near_support", (SUPPORT, OTHER))}

Change = Tensor | Vector | tuple[Increment, ...]  # what one sample of the support changes in a weight, per unit step


def adapt(
    logits: Any,
    *,
    steps: int = 1,
    step_size: float | Mapping[str, float] = 0.1,
    layers: str | Iterable[str] = "readout",
    zero: str | Iterable[str] = (),
    order: int = 2,
    loss: str = "cross_entropy",
) -> TracedTensor:
    """The logits after `steps` steps of projected gradient descent on the support set of a sample's task.

    `layers` names the weights that adapt ("all", one name, or several); `step_size` is one number or one per name.
    Weights in `zero` are zero before they adapt, and are not trained. `order` 2 differentiates through the steps, 1
    takes them as constant (first-order MAML). The program gains the inputs x_support (x along support), y_support
    (support, class), near (sample, support) and near_support, the weight of a support sample in the mean over its
    task, zero for other tasks, and share (sample,), the weight of a sample in the loss.
    Raises ProgramError, at the user's line, where samples depend on each other, and for order 2 through a hidden
    layer with a jump (step, sign), whose second derivatives have infinite expectations at coinciding latents.
    """
    _check_arguments(logits, steps, order, loss)
    names, start = _names(layers, "layers"), _names(zero, "zero")
    sizes = step_size if isinstance(step_size, Mapping) else dict.fromkeys(names, step_size)
    for name, size in sizes.items():
        if isinstance(size, Traced | bool) or not isinstance(size, Real) or not 0 <= size < float("inf"):
            got = "a traced value" if isinstance(size, Traced) else repr(size)
            fail(f"tpc.adapt expects a step size ≥ 0 of {name!r}, got {got}")
    given = isinstance(step_size, Mapping)
    where = user_line()

    def refuse(message: str, fix: str = "") -> NoReturn:  # nodes are built later, at no line of the user's
        raise ProgramError(message, where, fix)

    def build() -> Node:
        f = logits.build_tensor()
        if len(_inputs(f)) != 1:
            refuse("tpc.adapt expects logits that depend on the network's input x, and on it alone")
        weights = {w.name: w for w in _weights(f)}
        chosen = list(weights) if names == ("all",) else names
        for name in (*chosen, *start, *(sizes if given else ())):
            if name not in weights:
                refuse(f"tpc.adapt expects names of weights, got {name!r}", f"the network has {', '.join(weights)}")
        if given and set(sizes) != set(chosen):
            refuse("tpc.adapt expects one step size for every layer that adapts", f"give one for {', '.join(chosen)}")
        rates = {name: sp.nsimplify(sizes[name] if given else step_size, rational=True) for name in chosen}
        return _Adaptation(f, weights, rates, frozenset(start), order, loss, refuse).logits(steps)

    (classes,) = without(logits.axes, (SAMPLE,))
    if classes.size == 1 and loss == "cross_entropy":
        fail(
            "tpc.adapt learns by cross_entropy from one output, whose softmax is 1 whatever it is: it would never move",
            "adapt with loss='mse', or give the readout two classes",
        )
    return scalar(logits.axes, build, logits)


def _check_arguments(logits: Any, steps: Any, order: Any, loss: Any) -> None:
    if not isinstance(logits, TracedTensor) or not logits.origin:
        fail("tpc.adapt expects the logits of a network", "write f = tpc.readout(…) and return tpc.adapt(f, …)")
    if SAMPLE not in logits.axes or len(logits.axes) != 2:
        found = ", ".join(map(str, logits.axes)) or "no axes"
        fail(f"tpc.adapt expects logits with axes (sample, class), got a scalar with {found}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        fail(f"tpc.adapt expects steps ≥ 1, a whole number, got {steps!r}")
    if isinstance(order, bool) or order not in (1, 2):
        fail(f"tpc.adapt expects order 1 or 2, got {order!r}")
    if loss not in LOSSES:
        fail(f"tpc.adapt expects a loss among {', '.join(LOSSES)}, got {loss!r}")


def _names(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    found = tuple(name for name in found if not (isinstance(name, str) and not name))
    if not all(isinstance(name, str) for name in found) or (what == "layers" and not found):
        fail(f"tpc.adapt expects names of weights in {what}, got {value!r}")
    return found


def _inputs(f: Tensor) -> list[Input]:
    return [n for n in topological([f]) if isinstance(n, Input)]


def is_adapted(program: Program) -> bool:
    """Whether the logits of a program depend on a support set."""
    return any(n.name == X_SUPPORT for n in program.inputs)


def _weights(root: Node) -> Iterator[AnyWeight]:
    return (n for n in topological([root]) if isinstance(n, AnyWeight))


def _names_of(root: Node) -> set[str]:
    return {w.name for w in _weights(root)}


@dataclass
class _Adaptation:
    """The steps of one network: `rates` are the step sizes of the weights that adapt, `zero` start at zero."""

    f: Tensor
    weights: Mapping[str, AnyWeight]
    rates: Mapping[str, sp.Expr]
    zero: frozenset[str]
    order: int
    loss: str
    refuse: Callable[..., NoReturn]

    def logits(self, steps: int) -> Tensor:
        """The network's output with adapted weights."""
        self._check()
        gradients = self._gradients()
        taken: list[dict[str, Change]] = []
        for _ in range(steps):
            now = self._adapted(taken, SUPPORT, {w: self._template(w) for w in self.weights.values()})
            taken.append({name: self._constant(_substituted(g, now)) for name, g in gradients.items()})
        return self._adapted(taken, SAMPLE, {w: w for w in self.weights.values()}).tensor(self.f)

    # --- one step ----------------------------------------------------------------------------------------------

    def _template(self, w: AnyWeight) -> AnyWeight:
        """A stand-in for a weight, one for every support sample, so that gradients come sample by sample."""
        if w.name not in self.rates and w.name not in self.zero:
            return w
        name = f"{w.name}.adapted"
        if isinstance(w, ir.MatrixWeight):
            return replace(w, name=name)
        return replace(w, name=name, shape=(*w.shape, SUPPORT))

    def _widened(self) -> Tensor:
        """The network with every product of a matrix that adapts made sample by sample, even of what all share."""

        f = _Widened(set(self.rates))(self.f)
        assert isinstance(f, Tensor)
        return f

    def _gradients(self) -> dict[str, Change]:
        """What every support sample's loss asks of each weight."""
        (x,) = _inputs(self.f)
        f = self._widened()
        leaves: dict[Node, Node | None] = {w: self._template(w) for w in self.weights.values()}
        support = Input(X_SUPPORT, renamed(x.shape, {SAMPLE: SUPPORT}))
        f = Substitution({**leaves, x: support}, axes={SAMPLE: SUPPORT}).tensor(f)
        (classes,) = without(f.axes, (SUPPORT,))
        y = Input("y_support", (SUPPORT, classes))
        total = tensor.contract((per_sample(f, y, classes, self.loss),), (SUPPORT,))
        wanted = {self._template(self.weights[name]): name for name in self.rates}
        found = differentiate(total, wanted)
        return {name: _learned(w, found[w]) for w, name in wanted.items() if w in found}

    def _adapted(self, taken: list[dict[str, Change]], axis: Axis, names: Mapping[Any, AnyWeight]) -> Substitution:
        """Images of the weights, or of their stand-ins, as samples along `axis` see them after the steps taken."""
        leaves: dict[Node, Node | None] = {}
        increments: dict[Node, tuple[Increment, ...]] = {}
        other = OTHER if axis == SUPPORT else SUPPORT
        for w, leaf in names.items():
            changes = [step[w.name] for step in taken if w.name in step]
            if leaf is w and not changes and w.name not in self.zero:
                continue
            rate = tensor.contract((tensor.Constant(-self.rates.get(w.name, sp.Integer(0))), NEAR[axis]))
            if isinstance(w, ir.MatrixWeight):
                leaves[leaf] = w
                increments[leaf] = tuple(_applied(i, rate, other) for c in changes for i in _increments(c))
            elif isinstance(w, ir.VectorWeight):
                parts: list[Part] = [] if w.name in self.zero else [(ONE, w, ())]
                parts += [p for c in changes for p in _parts(c, rate, other)]
                leaves[leaf] = ir.lincomb(parts)
            else:
                moved = [tensor.rename(c, {SUPPORT: other}) for c in changes if isinstance(c, Tensor)]
                leaves[leaf] = tensor.add([w, *(tensor.contract((rate, c), (other,)) for c in moved)])
        return Substitution(leaves, increments)

    def _constant(self, change: Change) -> Change:
        """The change as the outer gradient sees it."""
        if self.order == 2:
            return change
        if isinstance(change, Tensor):
            return tensor.stop_gradient(change)
        if isinstance(change, Vector):
            made = ir.lincomb((tensor.stop_gradient(c), ir.stop_gradient(x), over) for c, x, over in _terms(change))
            assert made is not None
            return made
        return tuple(replace(i, y=ir.stop_gradient(i.y), x=ir.stop_gradient(i.x)) for i in change)

    # --- what cannot be adapted --------------------------------------------------------------------------------

    def _check(self) -> None:
        for name in self.zero:
            if getattr(self.weights[name], "role", "") != "readout":
                self.refuse(f"tpc.adapt: only readouts can start at zero, {name!r} is none")
        for name in self.zero:
            if not self.rates.get(name):
                self.refuse(f"tpc.adapt: {name!r} starts at zero and does not adapt: it stays zero", "add it to layers")
        for n in topological([self.f]):
            if joined(n):
                self.refuse("tpc.adapt expects a network that treats samples one by one, got a sum over samples")
            if self.order == 2 and isinstance(n, ir.Nonlin | ir.Moment) and _jumps(n.fn, len(n.xs)):
                deep = [name for name in self.rates if name in _names_of(n)]
                if deep:
                    self.refuse(
                        f"second-order adaptation of {deep[0]!r} differentiates {text(n.fn)} twice, and has a jump in "
                        "it: expectations of its derivatives, δ and δ′, are infinite where a latent equals a stored "
                        "one",
                        "use order=1, adapt what comes after the jump only, or take a nonlinearity without jumps such "
                        "as tpc.erf",
                    )


class _Widened(Rewriter[Node]):
    """Products of the matrices named, of what all samples share, as one for every sample."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self._names = names

    def rule(self, n: Node) -> Node:
        made = self.rebuilt(n)
        if isinstance(made, ir.MatMul) and SAMPLE not in made.axes and self._names & _names_of(made.matrix):
            return replace(made, x=ir.LinComb(((tensor.Broadcast(ONE, (SAMPLE,)), made.x, ()),)))
        return made


def _jumps(fn: sp.Expr, arguments: int) -> bool:
    return any(sp.diff(fn, argument(i)).has(sp.DiracDelta) for i in range(arguments))


# --- changes: a tensor, a vector, or what is added to a matrix -------------------------------------------------


def _terms(x: Vector) -> tuple[Part, ...]:
    """The terms of a linear combination; any other vector is one."""
    return x.terms if isinstance(x, ir.LinComb) else ((ONE, x, ()),)


def _learned(w: Node, gradient: Node) -> Change:
    """A gradient, sample by sample. What limits make of it is linear, so the mark goes to the vectors of a sum."""
    if isinstance(gradient, Matrix):
        found = outers(gradient)
        return tuple(Increment(ONE, ir.Learned(o.y), o.x, o.over) for o in found)
    if isinstance(gradient, Vector) and getattr(w, "role", "") == "input":
        made = ir.lincomb((c, ir.Learned(x), over) for c, x, over in _terms(gradient))
        assert made is not None
        return made
    assert isinstance(gradient, Tensor | Vector)
    return gradient


def _substituted(change: Change, images: Substitution) -> Change:
    if isinstance(change, Tensor):
        return images.tensor(change)
    if isinstance(change, Vector):
        made = images.vector(change)
        return () if made is None else made
    found = []
    for i in change:
        y, x = images.vector(i.y), images.vector(i.x)
        if y is not None and x is not None:
            found.append(Increment(images.tensor(i.coefficient), y, x, i.over))
    return tuple(found)


def _parts(change: Change, rate: Tensor, other: Axis) -> Iterator[Part]:
    """rate · Σ_other change, term by term."""
    if isinstance(change, Vector):
        for term in _terms(change):
            c, x, over = freshened(term, term[2], (other,))
            inner = renamed((c, x), {SUPPORT: other})
            yield within((rate, inner[1], (other,)), (*inner, over))


def _increments(change: Change) -> tuple[Increment, ...]:
    return change if isinstance(change, tuple) else ()


def _applied(i: Increment, rate: Tensor, other: Axis) -> Increment:
    made = renamed(freshened(i, i.over, without((other,), (SUPPORT,))), {SUPPORT: other})
    return replace(made, coefficient=tensor.contract((rate, made.coefficient)))


def release(program: Program) -> Program:
    """Drop the marks that stop gradients, which have done their work once a program is differentiated."""
    image = _Released()
    outputs = tuple((name, image(value)) for name, value in program.outputs)
    sources = {image.known.get(n, n): line for n, line in program.sources.items()}
    return replace(program, outputs=outputs, sources=sources)


class _Released(Rewriter[Node]):
    def rule(self, n: Node) -> Node:
        return self.rebuilt(n) if n.differentiable else self(n.operands[0])
