"""Where every tensor of a limit comes from: the instruction it is the limit of, the rule, and the user's line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tpc.errors import SourceLine
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, Gram, Kernel, State, atoms_in
from tpc.limits.power import Half, Opened, Power, Product, Slope
from tpc.limits.store import Accumulate, Append, Update
from tpc.passes.project import PREFIX
from tpc.program import ir, tensor
from tpc.program.functions import argument
from tpc.program.lines import Names, operation, type_of
from tpc.program.node import Node, topological
from tpc.program.program import Program
from tpc.program.shift import Shifted, ShiftedVector, Unshifted, UnshiftedVector
from tpc.program.tensor import Tensor

STAGES = ("network", "loss", "gradient", "gradient norm")


@dataclass(frozen=True)
class Rule:
    """A rule of the derivation: its name, and its equation in unicode."""

    name: str
    equation: str


@dataclass(frozen=True)
class Origin:
    """`node` is the instruction that a tensor is the limit of, or (not `whole`) part of the limit of.

    `rule` took the instruction to its limit, `step` is the rule for this tensor within it. `stage` is one of STAGES.
    """

    node: Node
    whole: bool
    rule: Rule
    step: Rule
    stage: str
    where: SourceLine | None


WEIGHT = Rule("parameter", "U = Ω A (input-like), W = (1/n) Ω′ Aᵀ X (hidden), v = (1/n) Aᵀ X (readout)")
LATENT = Rule("matrix product", "h′ = W x, W = (1/n) Ω′ Aᵀ X  ⟹  g′ = Σₘ Aₘ E xₘ x")
STEIN = Rule("projection, by Stein's lemma", "Π f(h₁, …)  ⟹  E z f(⟨z,g₁⟩, …) = Σⱼ E[∂ⱼf] gⱼ")
LINEAR = Rule("linearity", "h = Σ c hᵢ  ⟹  g = Σ c gᵢ")
PROJECT = Rule("projection", "Π h = h for a G-vector; else Π x has the latent E z x(z)")
RENAME = Rule("renamed axes", "the same values, other names of axes")
WINDOW = Rule("window", "y[p, o] = x[stride·p + dilation·o − pad], or its transpose: both are linear")
GRAM = Rule("moment of a G-vector", "(1/n) hᵀ x  ⟹  ⟨g, E z x(z)⟩")
MOMENT = Rule("Master Theorem", "(1/n) Σ_α f(x_α, …)  ⟹  E f(x(z), …), z ~ N(0, I_r)")
SCALAR = Rule("finite tensors", "the limit of f(s₁, …) is f of the limits")
READOUT = Rule("readout", "f = (1/n) vᵀ x, v = (1/n) Aᵀ X  ⟹  f = Σₘ Aₘ E xₘ x")
TANGENT = Rule("tangent kernel", "Σ_W σ² ⟨∂f/∂W, ∂f′/∂W⟩;  ∂f/∂W = (1/n) y xᵀ  ⟹  E y y′ · E x x′")
UPDATE = Rule("gradient", "∇W = (1/n) Σ dy xᵀ: its terms are what a step stores")
COVARIANCE = Rule("covariance at initialization", "Cov(W x, W y) = σ² E x y, distinct weights independent")

_STEPS: dict[type[Tensor], Rule] = {
    Gram: Rule("covariance", "Cov(⟨z,a⟩, ⟨z,b⟩) = ⟨a, b⟩ for z ~ N(0, I_r)"),
    Kernel: Rule("kernel", "E φ(u) ψ(v) = V[φ,ψ](p, q, c)"),
    Expectation: Rule("expectation of several variables", "E f(u₁, …, u_k), covariances cᵢⱼ"),
    State: Rule("stored array", "changed by the update"),
    tensor.Input: Rule("data", "given with every call"),
    tensor.Size: Rule("length of an axis", "known when data are given"),
    tensor.Rename: RENAME,
    tensor.Broadcast: Rule("broadcast", "the same values along further axes"),
    Shifted: WINDOW,
    Unshifted: WINDOW,
    tensor.LogSumExp: Rule("log-sum-exp", "log Σ exp s"),
    Power: Rule("folding: symmetric power", "⟨Φₙ(g), Φₙ(h)⟩ = ⟨g, h⟩ⁿ"),
    Product: Rule("folding: symmetric product", "the symmetric part of g₁ ⊗ g₂ ⊗ …"),
    Opened: Rule("folding: one slot left open", "⟨M, g ⊗ ·⟩"),
    Half: Rule("folding: half of a quadratic form", "⟨M, g ⊗ ·⟩, shared by both passes"),
    Slope: Rule("folding: gradient", "∂⟨M, Φₙ(g)⟩/∂g"),
}
_ATOMS = Rule("sum over atoms", "Σₘ over the stored rows of a trained weight")
_SUM = Rule("sum", "Σ over finite axes")
_PRODUCT = Rule("product", "of finite tensors")
_ADD = Rule("sum of terms", "expectations are linear")
_MAP = Rule("elementwise", "f of every entry")


def origins(graph: LimitGraph, program: Program) -> dict[Tensor, Origin]:
    """The origin of every tensor of `graph`, the limit of `program`.

    A tensor that is no instruction's limit belongs to that of the first that is computed from it.
    """
    stages = stages_of(program)
    kernels = not graph.updates
    nodes = graph.nodes
    whole: dict[Tensor, Node] = {t: n for t, n in graph.sources.items() if n in stages}
    weights = {w.name: w for w in program.weights}
    for s in graph.stores:
        whole |= dict.fromkeys((s.coefficients, *s.columns, *s.thetas), weights[s.weight])
    owner: dict[Tensor, Node] = {}
    for weight, update in _updates(graph):
        if f"{PREFIX}{weight}" in program:
            for t in parts_of(update):
                owner.setdefault(t, program[f"{PREFIX}{weight}"])
    first = program.outputs[0][1]
    if kernels:
        whole |= {t: first for name, t in graph.outputs if name.startswith(graph.outputs[0][0])}
    tangent: set[Tensor] = set()
    for t in reversed(nodes):
        if t in whole:
            tangent.discard(t)
        elif t not in owner:
            tangent.add(t)
        owner[t] = whole.get(t) or owner.get(t, first)
        for m in t.operands:
            if isinstance(m, Tensor):
                (tangent.add if t in tangent else tangent.discard)(m)
                owner[m] = owner[t]  # of several users the first in the order of the graph, as it is met last
    return {
        t: Origin(
            n,
            t in whole,
            TANGENT if kernels and t in tangent else COVARIANCE if kernels and n is first else rule_of(n, kernels),
            step_of(t),
            stages[n],
            line_of(n, program),
        )
        for t in nodes
        for n in [owner[t]]
    }


def parts_of(update: Update) -> tuple[Tensor, ...]:
    """The tensors that an update needs, in the order in which the listing names them."""
    if isinstance(update, Append):
        return (update.coefficient, *update.columns, *update.thetas)
    return (update.gradient,)


def rule_of(n: Node, kernels: bool = False) -> Rule:
    """The rule that takes an instruction to its limit; `kernels` for the limits at initialization."""
    match n:
        case tensor.Weight() | ir.VectorWeight():
            return COVARIANCE if kernels else WEIGHT
        case ir.Moment():
            if not kernels and any(isinstance(x, ir.VectorWeight) and x.role == "readout" for x in n.xs):
                return READOUT
            if not kernels and n.fn in (ir.PRODUCT, argument(0) ** 2) and any(x.kind == "G" for x in n.xs):
                return GRAM
            return MOMENT
        case ir.RenameVector() | tensor.Rename():
            return RENAME
        case ShiftedVector() | UnshiftedVector() | Shifted() | Unshifted() if not kernels:
            return WINDOW
        case ir.Vector() if kernels:
            return COVARIANCE
        case ir.LinComb():
            return LINEAR
        case ir.Project():
            return PROJECT
        case ir.MatMul() if isinstance(n.matrix, ir.MatrixWeight):
            return LATENT
        case ir.Vector():
            return STEIN
        case ir.Matrix():
            return UPDATE
    return SCALAR


def step_of(t: Tensor) -> Rule:
    """What a tensor is within the limit of an instruction."""
    if isinstance(t, tensor.Contract):
        return _ATOMS if atoms_in(t.over) else _SUM if t.over else _PRODUCT
    if isinstance(t, tensor.Add):
        return _ADD
    return _STEPS.get(type(t), _MAP)


def line_of(n: Node, program: Program) -> SourceLine | None:
    """The user's line of an instruction, or of what it projects, renames or is an outer product of."""
    while program.where(n) is None:
        match n:
            case ir.Project() | ir.Learned() | ir.RenameVector() | tensor.Rename() | tensor.Broadcast():
                n = n.arg
            case ir.MatrixSum():
                n = n.terms[0]
            case ir.Outer():
                n = n.y
            case _:
                break
    return program.where(n)


def instruction(n: Node, names: Names) -> str:
    """The line of a listing for an instruction of the program that `names` is of."""
    return f"{names[n]} : {type_of(n)} = {operation(n, names)}"


def _updates(graph: LimitGraph) -> Iterator[tuple[str, Append | Accumulate]]:
    for weight, updates in graph.updates:
        for u in updates:
            yield weight, u


def stages_of(program: Program) -> dict[Node, str]:
    """For every instruction, what it was first needed for."""
    found: dict[Node, str] = {}
    for name, value in program.outputs:
        stage = {"grad": STAGES[2], "norm2": STAGES[3]}.get(name.partition(":")[0], STAGES[name == "loss"])
        for n in topological([value], lambda n: () if n in found else n.operands):
            found.setdefault(n, stage)
    return found
