"""A program: named outputs over shared nodes, with the user's source lines as side data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tpc.errors import InternalError, SourceLine
from tpc.program.axes import Axis
from tpc.program.ir import MatrixWeight, Vector, VectorWeight
from tpc.program.lines import written
from tpc.program.node import Node, topological
from tpc.program.tensor import Input, Tensor, Weight

AnyWeight = Weight | VectorWeight | MatrixWeight


@dataclass(frozen=True, repr=False)
class Program:
    """A Tensor Program.

    `outputs` maps names to nodes: "logits"; after `attach_loss` also "loss"; after `backward` `grad:<weight>`;
    after `norms` `norm2:<weight>`. `joins_samples` says that samples may depend on each other
    (tpc/passes/samples.py). Two programs are equal when name, output nodes and that are the same.
    """

    name: str
    outputs: tuple[tuple[str, Node], ...]
    sources: Mapping[Node, SourceLine] = field(default_factory=dict, compare=False, repr=False)
    joins_samples: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.listing, tuple(self.sources.get(n) for n in self.nodes))

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # it never changes

    def __repr__(self) -> str:
        weights, outputs = ", ".join(w.name for w in self.weights), ", ".join(dict(self.outputs))
        return f"<program {self.name}: {len(self.nodes)} lines, weights {weights}, outputs {outputs}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.listing)}</pre>"

    @classmethod
    def listed(cls, text: str, file: str) -> Program:
        """The program of a listing; raises ProgramError naming the line that cannot be read."""
        from tpc.program.parse import read  # what is traced is not read

        name, outputs, joins = read(text, file)
        return cls(name, outputs, joins_samples=joins)

    @property
    def listing(self) -> str:
        """The program as text."""
        return written(self.name, self.nodes, self.axes, self.outputs, self.joins_samples)

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return dict(reversed(self.outputs))

    def __getitem__(self, output: str) -> Node:
        if output not in self._by_name:
            raise InternalError(f"program {self.name} has no output {output}")
        return self._by_name[output]

    def __contains__(self, output: str) -> bool:
        return output in self._by_name

    def tensor(self, output: str) -> Tensor:
        value = self[output]
        if not isinstance(value, Tensor):
            raise InternalError(f"output {output} is a {type(value).__name__}, not a finite tensor")
        return value

    def with_outputs(self, *extra: tuple[str, Node]) -> Program:
        return replace(self, outputs=self.outputs + extra)

    @property
    def nodes(self) -> list[Node]:
        """Every node, operands first."""
        return topological(value for _, value in self.outputs)

    @property
    def weights(self) -> tuple[AnyWeight, ...]:
        """The trained parameters, in the order the network uses them."""
        used = (operand for n in self.nodes for operand in n.operands)
        return tuple(dict.fromkeys(n for n in used if isinstance(n, AnyWeight)))

    @property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(n for n in self.nodes if isinstance(n, Input))

    @property
    def axes(self) -> tuple[Axis, ...]:
        seen: dict[Axis, None] = {}
        for n in self.nodes:
            for axis in n.mentions:
                seen.setdefault(axis)
        return tuple(seen)

    @property
    def spaces(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for n in self.nodes:
            if isinstance(n, Vector):
                found.setdefault(n.space.name)
        return tuple(found)

    def where(self, n: Node) -> SourceLine | None:
        """The user's line a node came from."""
        return self.sources.get(n)


def _unpickled(text: str, lines: Sequence[SourceLine | None]) -> Program:
    made = Program.listed(text, "<listing>")
    return replace(made, sources={n: line for n, line in zip(made.nodes, lines) if line is not None})
