"""What may stand in config.toml: one rule per entry, the same for command line, file and Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from tpc.errors import UsageError, did_you_mean
from tpc.limits.kinds import kernel_limits, trained_limits
from tpc.passes.loss import LOSSES
from tpc.runtime.models.arguments import CLIP_MODES
from tpc.runtime.models.backend import BACKENDS
from tpc.runtime.models.model import MODES
from tpc.runtime.networks.parametrization import PARAMETRIZATIONS

DTYPES = ("float32", "float64")
SCHEDULES = ("constant", "cosine")


def parse_drop(text: object) -> tuple[int, float]:
    """'40:0.15' → (40, 0.15): after 40 epochs the value is multiplied by 0.15."""
    epoch, colon, factor = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        drop = int(epoch), float(factor)
    except ValueError:
        drop = (-1, 0.0)
    if not colon or not _is_drop(drop):
        raise UsageError(f"{text!r} is not EPOCH:FACTOR, such as 40:0.15 (multiply by 0.15 after 40 epochs).")
    return drop


def check_entry(name: str, value: Any) -> None:
    """Raise UsageError unless `value` may stand in the entry `name`."""
    if name == "limit" or name in _CHOICES:
        choices = trained_limits() if name == "limit" else _CHOICES[name]
        if value not in choices and not (value is None and name in _OPTIONAL):
            what = value if isinstance(value, str) else repr(value)
            if name == "limit" and value in kernel_limits():
                raise UsageError(
                    f"the {what} limit is a kernel, which is not trained; available: {', '.join(choices)}."
                )
            hint = did_you_mean(what, choices)
            raise UsageError(f"the {what} {name} is not in this version; available: {', '.join(choices)}.{hint}")
        return
    fits, wanted = _ENTRIES[name]
    if not (fits(value) or (value is None and name in _OPTIONAL)):
        raise UsageError(f"expected {name} to be {wanted}, got {value!r}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _from(least: int) -> tuple[Callable[[Any], bool], str]:
    return (
        lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least,
        f"a whole number from {least} on",
    )


def _is_drop(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    epoch, factor = value
    return _from(0)[0](epoch) and _is_number(factor) and factor > 0


def _are_multipliers(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(_is_text(name) and _is_number(number) and number >= 0 for name, number in value.items())


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "backend": BACKENDS,
    "parametrization": PARAMETRIZATIONS,
    "mode": MODES,
    "dtype": DTYPES,
    "clip_mode": CLIP_MODES,
    "loss": tuple(LOSSES),
    "lr_schedule": SCHEDULES,
}
_POSITIVE = (lambda value: _is_number(value) and value > 0, "a positive finite number")
_TEXT = (_is_text, "a text")
_DROPS = (
    lambda value: isinstance(value, tuple) and all(map(_is_drop, value)),
    "pairs of an epoch from 0 on and a positive factor",
)
_ENTRIES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("program", "function", "data", "data_dir", "split", "storage", "init"), _TEXT),
    "fold_coefficients": _TEXT,
    **dict.fromkeys(("limit_train_size", "rank", "epochs", "batch_size", "checkpoint_steps", "fold_degree"), _from(1)),
    "width": _from(1),
    **dict.fromkeys(("shots", "queries", "tasks", "batches"), _from(1)),
    **dict.fromkeys(("ways", "episodes"), _from(2)),
    **dict.fromkeys(("lr", "checkpoint_seconds", "fold_tolerance"), _POSITIVE),
    "clip": (lambda value: _is_number(value) and value >= 0, "a positive finite number, or 0 for no clipping"),
    **dict.fromkeys(("window", "fold_points", "shift"), _from(0)),
    **dict.fromkeys(("lr_drop", "clip_drop"), _DROPS),
    "settings": (lambda value: isinstance(value, Mapping), "a table of the program's keyword arguments"),
    "lr_mult": (_are_multipliers, "a table of parameters and finite multipliers from 0 on, such as {embed = 0.1}"),
    "weight_decay": (lambda value: _is_number(value) and value >= 0, "a finite number from 0 on"),
    "momentum": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 on and below 1"),
    **dict.fromkeys(("decay_follows_lr_mult", "mirror"), (lambda value: isinstance(value, bool), "true or false")),
    "seed": _from(0),
}
_OPTIONAL = (
    *("function", "data_dir", "limit_train_size", "storage", "init", "checkpoint_steps"),
    *("fold_degree", "fold_tolerance", "window", "fold_coefficients", "fold_points", "split"),
    *("width", "parametrization"),
)
