"""The limit graph as a listing: one tensor per line, then the update of every weight."""

from __future__ import annotations

from math import factorial, prod

from sympy import Expr

from tpc.gaussian.names import KernelNames
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, Gram, Kernel, State
from tpc.limits.power import Half, Opened, Power, Product, Slope, order_of
from tpc.limits.store import Accumulate, Fold, Store, Update
from tpc.program.functions import X, argument
from tpc.program.lines import Names, operation
from tpc.program.naming import text
from tpc.program.node import Node, topological
from tpc.program.tensor import Tensor


class LimitNames(Names):
    """The names of the tensors of a limit, and of its `functions`."""

    def __init__(self, graph: LimitGraph) -> None:
        nodes = graph.nodes
        super().__init__(list(nodes), prefix)
        self.functions = KernelNames(dict.fromkeys((n.phi, n.psi) for n in nodes if isinstance(n, Kernel)))


def limit_names(graph: LimitGraph) -> LimitNames:
    """The names a listing gives to the tensors of a graph."""
    return LimitNames(graph)


def listing(graph: LimitGraph) -> str:
    """The whole graph as text."""
    names = limit_names(graph)
    lines = [f"limit {graph.limit} of {graph.name}"]
    for axis in graph.axes:
        if axis.base == axis.name:
            size = "" if axis.size is None else f" = {axis.size}"
            lines.append(f"axis {axis.name}{size} ({axis.role})")
    lines += [f"where {name}(x) = {text(phi)}" for name, phi in names.functions.definitions.items()]
    lines += [f"{names[n]} : {type_of(n)} = {equation(n, names)}" for n in graph.nodes if names.is_line(n)]
    lines += [f"output {name} = {names[t]}" for name, t in graph.outputs]
    lines += [f"norm2 {name} = {names[t]}" for name, t in graph.norms]
    lines += [update_line(u, names) for _, updates in graph.updates for u in updates]
    lines += [line for f in graph.folds for line in _folding(f)]
    return "\n".join(lines) + "\n"


def _folding(f: Fold) -> list[str]:
    """What becomes of a store's oldest atoms."""
    s = f.store
    lines = []
    for m in f.moments:
        sums = [f"sum[{s.atom}]({', '.join(_folded_factors(s, *profile))})" for profile in m.profiles]
        right = " + ".join([m.state.name, *sums])
        lines.append(f"fold {m.state.name} <- {right}  for the oldest atoms")
    if f.tail is not None:
        t, shown = f.tail, s.fn.xreplace({argument(0): X}) if len(s.columns) == 1 else s.fn
        args = ", ".join(f"<{t.points.name}, {c.name}>" for c in s.columns)
        total = f"sum[{s.atom}](1/{t.count}, {s.coefficients.name}, beyond[{f.degree}]({text(shown)})({args}))"
        lines.append(f"fold {t.values.name} <- {t.values.name} + {total}  for the oldest atoms")
    return lines


def _folded_factors(s: Store, index: tuple[int, ...], profile: Expr) -> list[str]:
    """number, A, E profile, and the product of the stored latents as often as `index` says."""
    order, single = sum(index), len(s.columns) == 1
    number = factorial(order) // prod(map(factorial, index))
    shown = profile.xreplace({argument(0): X}) if single and not s.thetas else profile
    given = [f"<{s.columns[0].name}, {s.columns[0].name}>"] if single else [c.name for c in s.columns]
    mean = f"E[{text(shown)}]({', '.join([*given, *(t.name for t in s.thetas)])})"
    args = [c.name for c, n in zip(s.columns, index, strict=True) for _ in range(n)]
    tensors = [f"power[{order}]({args[0]})" if len(set(args)) == 1 else f"product({', '.join(args)})"] if args else []
    return [*([str(number)] if number > 1 else []), s.coefficients.name, mean, *tensors]


def update_line(u: Update, names: LimitNames) -> str:
    """The update rule of a weight; η is the learning rate times the weight's multiplier, λ its decay."""
    if isinstance(u, Accumulate):
        return f"update {u.state.name} <- (1 - ηλ) {u.state.name} - η {names[u.gradient]}"
    stored = [
        f"{c.name} <- [{c.name}; {'unit ' if c.unit else ''}{names[t]}]" for c, t in zip(u.store.columns, u.columns)
    ]
    stored += [f"{c.name} <- [{c.name}; {names[t]}]" for c, t in zip(u.store.thetas, u.thetas)]
    coefficient = names[u.coefficient]
    if u.store.degree:
        power = f"^{u.store.degree}" if u.store.degree > 1 else ""
        coefficient += f"·|{names[u.columns[0]]}|{power}"
    a = u.store.coefficients.name
    batch = ", ".join(map(str, u.batch))
    return f"append {a} <- [(1 - ηλ) {a}; -η {coefficient}], {', '.join(stored)}  for each {batch}"


def update_listing(graph: LimitGraph) -> str:
    """The update rules alone, with the lines that they need beyond the forward pass."""
    names = limit_names(graph)
    forward = set(topological([graph["logits"]]))
    roots: list[Tensor] = []
    for _, updates in graph.updates:
        for u in updates:
            roots += [u.gradient] if isinstance(u, Accumulate) else [u.coefficient, *u.columns]
    needed = set(topological(roots)) - forward
    lines = [
        f"update rules of the {graph.limit}-limit of {graph.name}",
        "η: learning rate times the weight's multiplier (in ηλ the learning rate alone, unless decay follows the",
        "multipliers), λ: weight decay; momentum and clipping scale the new terms",
    ]
    lines += [
        f"{names[n]} : {type_of(n)} = {equation(n, names)}" for n in graph.nodes if n in needed and names.is_line(n)
    ]
    lines += [update_line(u, names) for _, updates in graph.updates for u in updates]
    lines += [f"|grad {weight}|^2 = {names[t]} = {equation(t, names)}" for weight, t in graph.norms if names.is_line(t)]
    return "\n".join(lines) + "\n"


def type_of(n: Tensor) -> str:
    """latent[…] for what has a rank axis, scalar[…] for the rest."""
    kind = "latent" if prefix(n) == "g" and not isinstance(n, State) else "array" if isinstance(n, State) else "scalar"
    return f"{kind}[{', '.join(map(str, n.axes))}]"


def equation(n: Tensor, names: LimitNames) -> str:
    """The right-hand side of a line."""
    match n:
        case State():
            return "state" + (" (unit rows)" if n.unit else "")
        case Gram():
            return f"<{names[n.a]}, {names[n.b]}>"
        case Kernel():
            return f"{names.functions.kernel(n.phi, n.psi)}({names[n.p]}, {names[n.q]}, {names[n.c]})"
        case Expectation():
            return f"E[{text(n.fn)}]({', '.join(names[g] for g in n.grams)})"
        case Power():
            return f"power[{order_of(n.slot)}]({names[n.arg]})"
        case Product():
            return f"product({', '.join(names[g] for g in n.args)})"
        case Opened():
            return f"opened[{order_of(n.slot)}]({names[n.dual]}, {names[n.arg]})"
        case Half():
            return f"half({names[n.matrix]}, {names[n.arg]})"
        case Slope():
            return f"slope[{order_of(n.slot)}]({names[n.dual]}, {names[n.arg]})"
    return operation(n, names)


def prefix(n: Node) -> str:
    """What the names of such tensors begin with."""
    if isinstance(n, Gram):
        return "c"
    if isinstance(n, Kernel | Expectation):
        return "k"
    assert isinstance(n, Tensor)
    return "g" if any(a.role == "rank" for a in n.axes) else "s"
