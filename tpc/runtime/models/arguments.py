"""The arguments of a model, checked: every mistake is a UsageError that says what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError, did_you_mean

Array = NDArray[Any]
CLIP_EPSILON = 1e-6
RANGE_NUMBERS = 1 << 20
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


def unknown_name(name: object, valid: Iterable[str], what: str) -> str:
    """The message for a name that is not one of `valid`."""
    choices = list(valid)
    hint = did_you_mean(str(name), choices)
    return f"there is no {what} called {name!r}; expected one of {', '.join(choices)}.{hint}"


def check_shape(name: str, value: Array, shape: tuple[int, ...]) -> None:
    """Raise UsageError unless the array has this shape."""
    if value.shape != shape:
        raise UsageError(f"expected {name} of shape {shape}, got {value.shape}")


def as_array(value: ArrayLike, name: str) -> Array:
    """The value as an array. Raises UsageError for what is none, such as rows of different lengths."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as e:
        raise UsageError(f"expected {name} to be an array ({e})") from e


def check_range(name: str, value: Array, dtype: str, most: float | None = None) -> None:
    """Raise UsageError for numbers that are not finite, or that `dtype` (up to `most`, by default its own) cannot hold.

    Large arrays are looked at in parts.
    """
    limit = most if most is not None else float(np.finfo(dtype).max)
    flat = value.reshape(-1)
    for start in range(0, len(flat), RANGE_NUMBERS):
        part = flat[start : start + RANGE_NUMBERS]
        if not np.isfinite(part).all():
            raise UsageError(f"expected finite numbers in {name}, got NaN or infinity")
        if not -limit <= float(part.min()) <= float(part.max()) <= limit:
            found = f"{part.min():.3g} to {part.max():.3g}"
            raise UsageError(f"expected numbers in {name} that {dtype} can hold, up to {limit:.3g}, got {found}")


def real_array(value: ArrayLike, name: str) -> Array:
    """The value as an array of real numbers."""
    array = as_array(value, name)
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise UsageError(f"expected {name} to hold real numbers, got {array.dtype}")
    return array


def check_not_negative(**values: float) -> None:
    """Raise UsageError for anything but finite numbers ≥ 0, by the names given."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
            raise UsageError(f"expected {name} to be a finite number ≥ 0, got {value!r}")


def input_rows(x: ArrayLike, shape: int | tuple[int, ...], dtype: str = "float64") -> Array:
    """Inputs (N, *shape), finite in `dtype`; samples with several axes may come flat. Raises UsageError otherwise."""
    rows = real_array(x, "inputs")
    shape = (shape,) if isinstance(shape, int) else shape
    if rows.ndim != 1 + len(shape) or rows.shape[1:] != shape:
        if rows.ndim != 2 or rows.shape[1] != math.prod(shape):
            raise UsageError(f"expected inputs of shape (N, {', '.join(map(str, shape))}), got {rows.shape}")
        rows = rows.reshape(len(rows), *shape)
    if not np.isfinite(rows).all():
        raise UsageError("expected finite inputs, got NaN or infinity")
    most = float(np.finfo(dtype).max)
    wider = rows.size and rows.dtype.itemsize > np.dtype(dtype).itemsize
    if wider and not -most <= float(rows.min()) <= float(rows.max()) <= most:
        raise UsageError(
            f"expected inputs in the range of {dtype}, up to {most:.3g}, got {rows.min():.3g} to {rows.max():.3g}: "
            "scale them down, or take dtype float64"
        )
    return rows


def multipliers(given: Mapping[str, float], weights: Iterable[str]) -> dict[str, float]:
    """The learning-rate multiplier of every weight. Raises UsageError for unknown names and negative numbers."""
    names = tuple(weights)
    if not isinstance(given, Mapping):
        example = f"{{{names[0]!r}: 2.0}}" if names else "{}"
        raise UsageError(f"expected lr_mult to map names of weights to factors, such as {example}, got {given!r}")
    for name in given:
        if name not in names:
            raise UsageError(unknown_name(name, names, "weight in lr_mult"))
    check_not_negative(**{f"lr_mult[{name!r}]": value for name, value in given.items()})
    return {w: float(given.get(w, 1.0)) for w in names}


def check_step(lr: float, weight_decay: float, momentum: float, clip: float | None, clip_mode: str) -> None:
    """Raise UsageError for options of a step that are out of range."""
    check_not_negative(lr=lr, weight_decay=weight_decay, momentum=momentum)
    if lr * weight_decay > 2:
        raise UsageError(
            f"expected lr·weight_decay ≤ 2, got {lr:g}·{weight_decay:g}: decay multiplies weights by "
            "1 - lr·weight_decay in every step, so they would grow without bound; take a weight_decay of at most "
            f"{2 / lr:.3g}"
        )
    if momentum >= 1:
        raise UsageError(f"expected 0 ≤ momentum < 1, got {momentum}")
    if clip is not None:
        check_clip(clip, clip_mode)


def check_sizes(**values: object) -> None:
    """Raise UsageError for anything but positive whole numbers, by the names given."""
    for name, size in values.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise UsageError(f"expected {name} to be a positive whole number, got {size!r}")


def check_seed(seed: object) -> None:
    """Raise UsageError for anything but whole numbers ≥ 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"expected a seed ≥ 0, got {seed!r}")
