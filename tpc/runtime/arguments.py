"""The arguments of a model, checked: every mistake is a UsageError that says what was expected and what came."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError

Array = NDArray[Any]
CLIP_EPSILON = 1e-6
CLIP_MODES = ("param", "global")


def check_clip(clip: float, mode: str) -> None:
    """Raise UsageError unless `clip` is a positive number and `mode` one of CLIP_MODES."""
    if mode not in CLIP_MODES:
        raise UsageError(f"expected a clip mode among {', '.join(CLIP_MODES)}, got {mode!r}")
    if isinstance(clip, bool) or not isinstance(clip, Real) or not (clip > 0 and math.isfinite(clip)):
        raise UsageError(f"expected clip to be a positive number, got {clip!r}")


def clip_factors(norms: Mapping[str, float], clip: float, mode: str) -> dict[str, float]:
    """min(1, clip/(norm + 1e-6)), with each weight's norm or with that of all together."""
    check_clip(clip, mode)
    if mode == "global":
        total = math.sqrt(sum(n * n for n in norms.values()))
        return dict.fromkeys(norms, min(1.0, clip / (total + CLIP_EPSILON)))
    return {name: min(1.0, clip / (n + CLIP_EPSILON)) for name, n in norms.items()}


def unknown_name(name: str, valid: Iterable[str], what: str) -> str:
    """The message for a name that is not one of `valid`."""
    choices = list(valid)
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no {what} called {name!r}; expected one of {', '.join(choices)}.{hint}"


def check_shape(name: str, value: Array, shape: tuple[int, ...]) -> None:
    """Raise UsageError unless the array has this shape."""
    if value.shape != shape:
        raise UsageError(f"expected {name} of shape {shape}, got {value.shape}")


def real_array(value: ArrayLike, name: str) -> Array:
    """The value as an array of real numbers."""
    try:
        array = np.asarray(value)
    except ValueError as e:
        raise UsageError(f"expected {name} to be an array ({e})") from e
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise UsageError(f"expected {name} to hold real numbers, got {array.dtype}")
    return array


def check_not_negative(**values: float) -> None:
    """Raise UsageError for anything but finite numbers ≥ 0, by the names given."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
            raise UsageError(f"expected {name} to be a finite number ≥ 0, got {value!r}")
