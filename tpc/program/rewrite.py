"""Recursion over deep graphs, with memory and without a deep stack: what every pass is written with.

A pass is a rule that calls itself for what a node is computed from, and remembers what it has seen:

    def tensor(self, n):
        return self._recall(self._tensors, n, self._tensor)  # the rule _tensor(n) calls self.tensor for operands

Calls nest up to a fixed depth. The one that would go deeper leaves the rules that wait for it by an exception, is put
on an explicit stack and made first; then those rules are called again, and find it in memory. What is done for the
first time is done in the order of plain recursion, and a rule is called again once for every operand whose own calls
nest too deep. So rules may change nothing but memories before all that they need is known.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar, cast

from tpc.errors import InternalError
from tpc.program.node import Node, rebuild, remade

N = TypeVar("N", bound=Node)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

DEEPEST = 16  # nested calls, of up to a dozen Python frames each


class _TooDeepError(BaseException):
    """Leaves the rules that wait for a call; not an Exception, so that none of them handles it."""

    def __init__(self, owner: Recursion, memory: dict[Any, Any], key: Any, rule: Callable[[Any], Any]) -> None:
        self.owner = owner
        self.call = (memory, key, rule)


class Recursion:
    """Calls a rule for what is not in memory yet. Rules that call one another share one."""

    def __init__(self) -> None:
        self._depth = 0

    def __call__(self, memory: dict[K, V], key: K, rule: Callable[[K], V]) -> V:
        """memory[key], by the rule if it is not there. Raises InternalError for what is needed to compute itself."""
        if key not in memory:
            if self._depth == 0:
                self._run(memory, key, rule)
            elif self._depth == DEEPEST:
                raise _TooDeepError(self, memory, key, rule)
            else:
                memory[key] = self._nested(rule, key)
        return memory[key]

    def _nested(self, rule: Callable[[K], V], key: K) -> V:
        self._depth += 1
        try:
            return rule(key)
        finally:
            self._depth -= 1

    def _run(self, memory: dict[Any, Any], key: Any, rule: Callable[[Any], Any]) -> None:
        stack = [(memory, key, rule)]
        waiting = {(id(memory), key)}
        while stack:
            memory, key, rule = stack[-1]
            try:
                memory[key] = self._nested(rule, key)
            except _TooDeepError as deeper:
                if deeper.owner is not self:
                    raise
                place = (id(deeper.call[0]), deeper.call[1])
                if place in waiting:
                    raise InternalError(f"{deeper.call[1]!r} is needed to compute itself") from None
                waiting.add(place)
                stack.append(deeper.call)
            else:
                stack.pop()


class Rewriter(Generic[N]):
    """The image of every node under a rule: by default the same node of the images of its operands."""

    def __init__(self, known: Mapping[N, N] | None = None) -> None:
        self.known: dict[N, N] = dict(known or {})
        self._recall = Recursion()

    def __call__(self, n: N) -> N:
        """The image of a node."""
        return self._recall(self.known, n, self.rule)

    def rule(self, n: N) -> N:
        """The image of a node that has not come up yet; calls `self` for what it is made of."""
        return self.rebuilt(n)

    def rebuilt(self, n: N) -> N:
        """The same node of the images of its operands."""
        return cast(N, rebuild(n, cast(Callable[[Node], Node], self)))

    def remade(self, n: N) -> N:
        """The instruction built anew of the images of its operands, which simplifies it."""
        return cast(N, remade(n, cast(Callable[[Node], Node], self)))
