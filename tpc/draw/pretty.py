"""Listing lines as the short formulas that a drawing has room for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OWN_LABEL = ("state", "input", "update")  # kinds whose name says it all
_KERNEL = re.compile(r"^V\[(.*)\](\(.*\))$")
_GRAM = re.compile(r"^<(.*)>$")
_SUM = re.compile(r"^sum\[(.*?)\]\((.*)\)$")
_CALL = re.compile(r"^(mul|add)\((.*)\)$")
_MAP = re.compile(r"^map\((.*); (.*)\)$")


def node_label(data: Mapping[str, Any], name: str) -> str:
    """What a drawn node says: `name = formula`, or the name alone for states, inputs and updates."""
    label = str(data.get("label") or name)
    line = str(data.get("equation", "")).partition("\n")[0]
    left, equals, right = line.partition(" = ")
    if not equals or data.get("kind") in OWN_LABEL or " " in left:
        return label
    return f"{label} = {formula(right)}"


def formula(text: str) -> str:
    """`sum[m](A, k)` → `Σ_m A·k`, `add(a, b)` → `a + b`, `<a, b>` → `⟨a, b⟩`, `map(u0**2; s)` → `s**2`."""
    if match := _KERNEL.match(text):
        return f"V[{match[1].replace('(x)', '').replace('DiracDelta', 'δ')}]{match[2]}"
    if match := _GRAM.match(text):
        return f"⟨{match[1]}⟩"
    if match := _SUM.match(text):
        return f"Σ_{match[1].replace(', ', ',')} {_joined(match[2], '·')}"
    if match := _CALL.match(text):
        return _joined(match[2], "·" if match[1] == "mul" else " + ")
    if match := _MAP.match(text):
        arguments = match[2].split(", ")
        return re.sub(r"\bu(\d+)\b", lambda m: arguments[int(m[1])], match[1])
    return text


def _joined(arguments: str, sign: str) -> str:
    parts = arguments.split(", ")
    return sign.join(parts).replace("+ -", "− ").replace("-1·", "−")
