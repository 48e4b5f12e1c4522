"""JSON as every reader accepts it: numbers that are not finite become null, NumPy's become Python's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(record: Any, **options: Any) -> str:
    """`json.dumps` of a record whose numbers need not be finite; there is no NaN and no Infinity in JSON (RFC 8259)."""
    return json.dumps(finite(record), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """The value in plain types, with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {_key(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy, whose import takes longer than most commands
        return finite(value.tolist())
    if value is None or isinstance(value, str | int):
        return value
    return finite(float(value))  # such as a number of sympy or mpmath


def _key(key: Any) -> str:
    return json.dumps(key) if isinstance(key, int | float) or key is None else str(key)
