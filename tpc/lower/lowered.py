"""Lowering, from top to bottom: what a trained limit computes becomes arithmetic, contractions of two, and a schedule.

A pass that inserts something before functions are scheduled is a further stage: `before("schedule", pass)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tpc.errors import InternalError
from tpc.limits.graph import LimitGraph
from tpc.lower.collect import collect
from tpc.lower.concretise import concretise
from tpc.lower.instructions import Lowered
from tpc.lower.plan import planned
from tpc.lower.rules import is_concrete, is_consistent, is_planned, is_scheduled
from tpc.lower.schedule import scheduled
from tpc.lower.stage_text import listing

Rule = Callable[[Lowered], Iterator[str]]


@dataclass(frozen=True)
class Stage:
    """A pass of lowering. `rule` gives what is broken of what holds from then on."""

    name: str
    run: Callable[[Lowered], Lowered]
    rule: Rule = is_consistent


Stages = tuple[Stage, ...]

STAGES: Stages = (
    Stage("concrete", concretise, is_concrete),  # kernels are closed forms, Gram entries contractions
    Stage("plan", planned, is_planned),  # contractions take two operands
    Stage("schedule", scheduled, is_scheduled),  # loops over atoms, what they keep, and the update in order
)


def before(name: str, *passes: Stage, stages: Stages = STAGES) -> Stages:
    """The stages with further ones before that of a name."""
    place = [s.name for s in stages].index(name)
    return stages[:place] + passes + stages[place:]


def until(name: str, stages: Stages = STAGES) -> Stages:
    """The stages up to that of a name."""
    return stages[: [s.name for s in stages].index(name) + 1]


def lower(
    graph: LimitGraph, multipliers: bool = False, predicted: LimitGraph | None = None, stages: Stages = STAGES
) -> Lowered:
    """Lower a limit graph that has a loss. `multipliers` stores a factor per atom, which momentum needs.

    Predictions come from `predicted` where another form of the graph suits large batches better. Raises UserError for
    products of two sums over atoms, InternalError where a stage breaks a rule.
    """
    return through(stages, collect(graph, multipliers, predicted))


def through(stages: Stages, lowered: Lowered) -> Lowered:
    """What the stages make of it. Raises InternalError where one breaks a rule."""
    rules: list[Rule] = [is_consistent]
    for stage in stages:
        lowered = stage.run(lowered)
        rules += [stage.rule] if stage.rule not in rules else []
        for broken in (b for rule in rules for b in rule(lowered)):
            raise InternalError(f"after {stage.name}, lowering of {lowered.graph.name}: {broken}")
    return lowered


def stage_listing(lowered: Lowered, stage: str) -> str:
    """A stage as text."""
    graph = lowered.graph
    step = [*(lowered.update or lowered.changes), *lowered.folds]
    return listing(f"{stage} of the {graph.limit}-limit of {graph.name}", lowered.functions, step)
