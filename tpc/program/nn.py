"""The operations a network is written with."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NoReturn

import sympy as sp

from tpc.errors import UsageError, UserError
from tpc.program import functions as F
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axis, union, without
from tpc.program.context import Trace, fail
from tpc.program.expression import checked_nonlinearity, parse_nonlinearity
from tpc.program.functions import X, argument
from tpc.program.numbers import exact
from tpc.program.positions import (
    axis_of,
    combined,
    data_positions,
    length,
    positions_of,
    seen,
    shifted,
    slidings,
    windows,
)
from tpc.program.trace import (
    Traced,
    TracedTensor,
    TracedVector,
    apply_nonlin,
    as_tensor,
    as_vector,
    scalar,
)

DATA = ("x", "y", "x_support", "y_support", "near", "near_support", "share")
RESERVED = (*DATA, "sample", "support", "feature", "class")


def _name(name: Any, operation: str) -> str:
    if not isinstance(name, str) or not name or not name.replace("_", "a").isalnum():
        fail(f"{operation} expects a name of letters, digits and _, got {name!r}", "for example name='hidden1'")
    if name in RESERVED:
        fail(f"the name {name!r} means data or one of its axes", "give the layer another name")
    return name


def _std(value: Any, what: str) -> sp.Expr:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        fail(f"expected a standard deviation {what} ≥ 0, got {value!r}")
    return _exact(value, what)


def _exact(value: Any, what: str) -> sp.Expr:
    try:
        return exact(value)
    except ValueError as e:
        return fail(f"{what}: {e}")


def _declare(name: str, kind: str, signature: Any) -> None:
    """Layers are known by name; using a name again means the same weights, so it must be the same layer."""
    layers = Trace.current().layers
    kind_before, before = layers.setdefault(name, (kind, signature))
    if kind_before != kind or before != signature:
        fail(
            f"layer {name!r} is used again as something else: expected {kind_before} as before, got {kind}"
            + ("" if kind_before != kind else " with other axes, spaces or scale"),
            "give the second layer a name of its own (the same name shares the same weights)",
        )


def dense(
    x: Any, name: str, weight_std: float = 1.0, *, space: str | None = None, axis: str | None = None
) -> TracedVector:
    """W x: an input layer when x is data, contracted along a finite axis, else a hidden layer into a new space.

    `weight_std` scales the initialization. `space` pins the output space by name. `axis` names what is contracted of
    data, its last one by default; there are vectors along all other axes. Calling it twice with one name shares the
    weights. Raises ProgramError when x is the output of a readout, and for an axis that data lacks.
    """
    name = _name(name, "tpc.dense")
    std = _std(weight_std, "weight_std")
    out = Trace.current().space(name)
    if space is not None:
        out.merge(Trace.current().space(_name(space, "space="), pinned=True))
    if isinstance(x, TracedTensor) and not x.origin:
        inner = (_contracted(x, axis),)
        _declare(name, "an input layer", (inner, std))
        return TracedVector(
            out,
            without(x.axes, inner),
            lambda: ir.LinComb(((x.build_tensor(), ir.VectorWeight(name, out.resolve(), inner, "input", std), inner),)),
        )
    v = as_vector(x, "tpc.dense")
    if axis is not None:
        fail("tpc.dense contracts a vector along its space, and data along an axis", "leave axis= out")
    _declare(name, "a hidden layer", (v.space, std))
    return TracedVector(
        out,
        v.axes,
        lambda: ir.MatMul(ir.MatrixWeight(name, out.resolve(), v.space.resolve(), std), v.build_vector()),
    )


def conv(
    x: Any,
    name: str,
    size: Any = 3,
    stride: Any = 1,
    padding: str = "same",
    *,
    dilation: Any = 1,
    axes: Any = None,
    weight_std: float = 1.0,
    space: str | None = None,
) -> TracedVector:
    """A convolution: h[p] = Σ_o W[o] x[stride·p + dilation·o − pad], a layer with a matrix for every offset o.

    `size`, `stride` and `dilation` are numbers or one for each axis; `axes` names the axes, by default all positions.
    `padding` is "same" (zeros beyond the border), "valid" (whole windows only) or "circular". Of data every offset and
    channel counts in the fan-in; between layers the sum is divided by the root of the number of offsets. Strides and
    "valid" leave fewer places, along an axis of another name. Raises ProgramError for a window that does not fit, and
    where the length of an axis is not known.
    """
    name = _name(name, "tpc.conv")
    std = _std(weight_std, "weight_std")
    data = isinstance(x, TracedTensor) and not x.origin
    traced = x if data else as_vector(x, "tpc.conv")
    along = positions_of(traced, axes, "tpc.conv")
    through = windows(slidings(along, size, stride, dilation, padding, "tpc.conv"), "tpc.conv")
    after, offsets = seen(traced.axes, through)
    out = Trace.current().space(name)
    if space is not None:
        out.merge(Trace.current().space(_name(space, "space="), pinned=True))
    if data:
        inner = (*offsets, _contracted(x, None, "tpc.conv"))
        _declare(name, "an input convolution", (inner, std))

        def of_data() -> ir.Vector:
            weight = ir.VectorWeight(name, out.resolve(), inner, "input", std)
            return ir.LinComb(((shifted(x.build_tensor(), through), weight, inner),))

        return TracedVector(out, without(after, inner), of_data)
    v = as_vector(x, "tpc.conv")
    _declare(name, "a convolution", (v.space, offsets, std))
    share = tensor.Constant(1 / sp.sqrt(sp.prod([a.size for a in offsets])))

    def of_vectors() -> ir.Vector:
        family = ir.MatrixWeight(name, out.resolve(), v.space.resolve(), std, offsets)
        return combined(share, shifted(ir.MatMul(family, v.build_vector()), through), offsets)

    return TracedVector(out, after, of_vectors)


def _contracted(x: TracedTensor, axis: str | None, operation: str = "tpc.dense") -> Axis:
    """The axis of data that an input layer contracts."""
    last = [a for a in x.axes if a.name == Trace.current().last]
    if axis is None and not last:
        fail(
            f"{operation} expects a vector or data with a {Trace.current().last} axis, got a number",
            "pass the network's input x, or name the axis to contract: axis=",
        )
    found = last[0] if axis is None else axis_of(x, axis)
    if found == SAMPLE:
        fail("tpc.dense contracts an axis of every sample's data, not the samples", "name another axis")
    return found


def readout(x: Any, classes: int, name: str = "readout", weight_std: float = 1.0, *, over: Any = ()) -> TracedTensor:
    """v x with v of size Θ(1/n): `classes` numbers per sample.

    `over` names axes of positions: each place has a v of its own, and their sum is divided by the root of their number.
    """
    v = as_vector(x, "tpc.readout")
    name = _name(name, "tpc.readout")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        fail(f"tpc.readout expects a positive number of classes, got {classes!r}")
    if name in Trace.current().spaces:
        _taken(name)
    axis = Axis("class" if name == "readout" else f"{name}_class", classes)
    std = _std(weight_std, "weight_std")
    places = positions_of(v, over, "tpc.readout") if over else ()
    count = sp.prod([length(a, "tpc.readout") for a in places])
    _declare(name, "a readout", (axis, std, v.space, places))

    def made() -> tensor.Tensor:
        weight = ir.VectorWeight(name, v.space.resolve(), (*places, axis), "readout", std)
        read = ir.moment(ir.PRODUCT, (v.build_vector(), weight))
        return tensor.contract((tensor.Constant(1 / sp.sqrt(count)), read), places)

    f = scalar(union(without(v.axes, places), (axis,)), made)
    f.origin = name
    return f


def _taken(name: str) -> NoReturn:
    """Tell why a readout cannot have the name of a layer, or of a bias that was made before it."""
    kind, _ = Trace.current().layers.get(name, ("", None))
    if kind:
        fail(
            f"tpc.readout({name!r}) would share its weights with {kind} of that name, which it cannot: those have "
            "entries of size 1, a readout's are of size 1/n",
            "give the readout a name of its own; tied embeddings have no infinite-width limit of this kind",
        )
    fail(f"the name {name!r} is taken by a bias made before its readout", "make the readout before its bias")


def bias(name: str, std: float = 0.0, *, axes: Any = ()) -> Any:
    """The trained bias of the layer `name`: a vector of its output space, or one number per class of a readout.

    `axes` names axes of data: there is one vector for every place of them, a learned position.
    """
    name = _name(name, "tpc.bias")
    width = _std(std, "std")
    kind, signature = Trace.current().layers.get(name, ("", None))
    weight = f"{name}.bias"
    if kind == "a readout":
        axis = signature[0]
        made = scalar((axis,), lambda: tensor.Weight(weight, (axis,), width))
        made.origin = name
        return made
    space = Trace.current().space(name)
    places = data_positions(axes, "tpc.bias")
    _declare(weight, "a bias", (places, width))
    entries = width * sp.sqrt(sp.prod([a.size for a in places]))  # the places are no fan-in
    return TracedVector(space, places, lambda: ir.VectorWeight(weight, space.resolve(), places, "input", entries))


def moment(x: Any, y: Any = None) -> TracedTensor:
    """(1/n) Σ_α x_α y_α, or (1/n) Σ_α x_α: a scalar for every combination of the finite axes."""
    a = as_vector(x, "tpc.moment")
    xs = (a,) if y is None else (a, as_vector(y, "tpc.moment"))
    for other in xs[1:]:
        a.space.merge(other.space)
    fn = argument(0) if y is None else ir.PRODUCT
    return scalar(union(*(v.axes for v in xs)), lambda: ir.moment(fn, [v.build_vector() for v in xs]))


def rms_norm(h: Any, eps: float = 1e-5) -> TracedVector:
    """h / sqrt(moment(h, h) + eps)

    With eps = 0 a sample for which h is 0 makes the loss of its batch NaN; tracing warns of it.
    """
    v = as_vector(h, "tpc.rms_norm")
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 <= float(eps) < float("inf"):
        fail(f"expected a number eps ≥ 0, got {eps!r}", "for example tpc.rms_norm(h, eps=1e-5)")
    return v * (moment(v, v) + eps) ** -0.5


def log_softmax(s: Any, axis: str) -> TracedTensor:
    """s - log Σ exp s along a finite axis"""
    t = as_tensor(s)
    a = axis_of(t, axis)
    lse = scalar(without(t.axes, (a,)), lambda: tensor.LogSumExp(t.build_tensor(), a), t)
    return t - lse


def softmax(s: Any, axis: str) -> TracedTensor:
    """exp s / Σ exp s along a finite axis"""
    t = log_softmax(s, axis)
    return scalar(t.axes, lambda: tensor.elementwise(sp.exp(argument(0)), (t.build_tensor(),)), t)


def total(value: Any, axis: str) -> Any:
    """The sum along a finite axis, of a scalar or of vectors."""
    if isinstance(value, TracedVector):
        a = axis_of(value, axis)
        return TracedVector(
            value.space,
            without(value.axes, (a,)),
            lambda: ir.LinComb(((tensor.ONE, value.build_vector(), (a,)),)),
        )
    t = as_tensor(value)
    a = axis_of(t, axis)
    return scalar(without(t.axes, (a,)), lambda: tensor.contract((t.build_tensor(),), (a,)), t)


def nonlin(phi: Any) -> Callable[[Any], TracedVector]:
    """A nonlinearity from an expression in x ("x*tanh(x)"), a sympy expression or a sympy Lambda."""
    try:
        expr = parse_nonlinearity(phi) if isinstance(phi, str) else checked_nonlinearity(_expression(phi))
    except UserError as e:
        message, _, fix = str(e).partition("\n  Fix: ")
        fail(message, fix)
    free = expr.free_symbols
    if not free:
        fail(f"a nonlinearity depends on x, got the constant {expr}", "add a number with h + …, or leave it out")
    if len(free) > 1:
        fail(f"a nonlinearity has one variable, got {', '.join(sorted(map(str, free)))}")
    fn = expr.xreplace({s: argument(0) for s in free})
    return lambda h: apply_nonlin(fn, (as_vector(h, f"the nonlinearity {phi}"),))


def _expression(phi: Any) -> sp.Expr:
    """A sympy expression, Lambda or number; whatever else is passed is told how to write it."""
    if isinstance(phi, sp.Lambda):
        return phi(X)
    if isinstance(phi, sp.Expr) or (isinstance(phi, Real) and not isinstance(phi, bool)):
        return sp.sympify(phi)
    name = getattr(phi, "__name__", "")
    if callable(phi) and name in F.NAMED:
        fix = f"tpc.{name}(h) is that nonlinearity; in an expression it is '{name}(x)'"
    elif callable(phi):
        fix = "write the function as text, 'x*tanh(x)': the compiler needs its formula"
    else:
        fix = "for example tpc.nonlin('x*tanh(x)')"
    what = f"the function {name}" if callable(phi) and name else type(phi).__name__
    raise UsageError(f"tpc.nonlin expects an expression in x, as text or from sympy, got {what}\n  Fix: {fix}")


def _named(name: str) -> Callable[..., TracedVector]:
    phi = F.NAMED[name]

    def apply(h: Any, *parameters: float) -> TracedVector:
        v = as_vector(h, f"tpc.{name}")
        for p in parameters:
            if isinstance(p, Traced):
                fail(f"the parameter of {name} must be a number from the settings, got a traced value")
            if isinstance(p, bool) or not isinstance(p, Real):
                fail(f"the parameter of {name} must be a number, got {p!r}")
            _exact(p, f"the parameter of {name}")
        try:
            fn = phi(argument(0), *parameters)
        except TypeError:
            fail(f"tpc.{name} got {len(parameters)} parameters too many")
        return apply_nonlin(fn, (v,))

    apply.__name__ = apply.__qualname__ = name
    meaning = (phi.__doc__ or "x") if phi.__module__ == F.__name__ else f"{name}(x)"  # sympy's own have its docstrings
    apply.__doc__ = f"{meaning}, coordinatewise on a vector."
    return apply


identity = _named("identity")
relu = _named("relu")
step = _named("step")
sign = _named("sign")
abs = _named("abs")
leaky_relu = _named("leaky_relu")
erf = _named("erf")
gelu = _named("gelu")
sin = _named("sin")
cos = _named("cos")
exp = _named("exp")
tanh = _named("tanh")
sigmoid = _named("sigmoid")
silu = _named("silu")
softplus = _named("softplus")
elu = _named("elu")
softsign = _named("softsign")
