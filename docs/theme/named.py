"""Griffe extension: operations that `tpc.program.nn` makes by a call, such as relu, have their docstrings."""

from __future__ import annotations

from typing import Any

import griffe

import tpc


class Named(griffe.Extension):
    """Gives the attributes `name = _named("name")` the docstring of the operation."""

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        if attr.path == f"tpc.program.nn.{attr.name}" and attr.name in tpc.__all__:
            attr.docstring = griffe.Docstring(getattr(tpc, attr.name).__doc__, parent=attr)
