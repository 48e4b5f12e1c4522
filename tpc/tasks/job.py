"""A training job: the entries of config.toml, each checked once for command line, config file and Python alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

import tpc
from tpc.compiler import KERNEL_PASSES, LIMITS
from tpc.errors import UsageError
from tpc.passes.loss import LOSSES
from tpc.runtime.arguments import CLIP_MODES
from tpc.runtime.backend import BACKENDS
from tpc.runtime.folding import FoldOptions, fold_from
from tpc.runtime.model import MODES
from tpc.runtime.trainer import Schedule, TrainSettings

Drops = tuple[tuple[int, float], ...]
DTYPES = ("float32", "float64")
_MAX_STEP_RECORDS = 20_000


@dataclass(frozen=True)
class TrainJob:
    """Everything needed to repeat a training; the fields are the entries of config.toml.

    Raises UsageError for a value of the wrong type or out of range.
    """

    program: str
    function: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    limit: str = "pi"
    data: str = "digits"
    data_dir: str | None = None
    limit_train_size: int | None = None
    backend: str = "numpy"
    dtype: str = "float32"
    rank: int = 100
    mode: str = "exact"
    fold_degree: int | None = None
    fold_tolerance: float | None = None
    window: int | None = None
    fold_coefficients: str | None = None
    storage: str | None = None
    init: str | None = None
    epochs: int = 10
    batch_size: int = 32
    lr: float = 0.5
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    lr_drop: Drops = ()
    clip: float | None = None
    clip_drop: Drops = ()
    clip_mode: str = "param"
    weight_decay: float = 0.0
    momentum: float = 0.0
    decay_follows_lr_mult: bool = False
    loss: str = "cross_entropy"
    seed: int = 0
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        for each in fields(self):
            check_entry(each.name, getattr(self, each.name))
        _ = self.fold
        if self.clip_drop and self.clip is None:
            raise UsageError("clip_drop (--clip-drop) lowers the clipping norm, so it needs clip (--clip), too.")

    @property
    def fold(self) -> FoldOptions | None:
        """How mode "folded" folds; None in mode "exact"."""
        return fold_from(self.mode, self.fold_degree, self.fold_tolerance, self.window, self.fold_coefficients)

    def check_drops(self) -> None:
        """Raise UsageError for a drop that the training ends before."""
        for name in ("lr_drop", "clip_drop"):
            for epoch, factor in getattr(self, name):
                if epoch >= self.epochs:
                    raise UsageError(
                        f"{name} {epoch}:{factor:g} (--{name.replace('_', '-')}) never takes effect: it starts after "
                        f"{epoch} epochs, and there are {self.epochs}. Leave it out or give more --epochs."
                    )

    def to_config(self) -> dict[str, Any]:
        """The job as written to config.toml."""
        config = asdict(self)
        for name in ("lr_drop", "clip_drop"):
            config[name] = [f"{epoch}:{factor!r}" for epoch, factor in config[name]]
        return {"tpc_version": tpc.__version__, **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainJob:
        """The job a config.toml describes; entries of other versions are told, not guessed."""
        if "program" not in config:
            raise UsageError("the configuration names no program.")
        return cls(**checked_entries(config))

    def train_settings(self, steps: int) -> TrainSettings:
        """The part of the job that the training loop reads; `steps` is the length of the training."""
        return TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=Schedule(self.lr, self.lr_drop),
            clip=None if self.clip is None else Schedule(self.clip, self.clip_drop),
            lr_mult=self.lr_mult,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            clip_mode=self.clip_mode,
            decay_follows_lr_mult=self.decay_follows_lr_mult,
            loss=self.loss,
            seed=self.seed,
            log_every=-(-steps // _MAX_STEP_RECORDS),
            checkpoint_steps=self.checkpoint_steps,
            checkpoint_seconds=self.checkpoint_seconds,
        )


def checked_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a TrainJob that a config.toml gives. Raises UsageError for an unknown or wrong entry."""
    known = {each.name for each in fields(TrainJob)}
    unknown = sorted(set(config) - known - {"tpc_version"})
    if unknown:
        raise UsageError(
            f"the configuration has the unknown entry {unknown[0]!r}; expected entries: {', '.join(sorted(known))}."
        )
    values = {key: value for key, value in config.items() if key in known}
    for name in ("lr_drop", "clip_drop"):
        if name in values:
            if not isinstance(values[name], list):
                raise UsageError(f"expected {name} to be a list such as ['40:0.15'], got {values[name]!r}.")
            values[name] = tuple(parse_drop(text) for text in values[name])
    for name, value in values.items():
        check_entry(name, value)
    return values


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
    """Raise UsageError unless `value` may stand in the field `name` of a TrainJob."""
    if name in _CHOICES:
        choices = _CHOICES[name]
        if value not in choices:
            what = value if isinstance(value, str) else repr(value)
            if name == "limit" and value in KERNEL_PASSES:
                raise UsageError(
                    f"the {what} limit is a kernel, which is not trained; available: {', '.join(choices)}."
                )
            raise UsageError(f"the {what} {name} is not in this version; available: {', '.join(choices)}.")
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
    "limit": tuple(limit for limit in LIMITS if limit not in KERNEL_PASSES),
    "backend": BACKENDS,
    "mode": MODES,
    "dtype": DTYPES,
    "clip_mode": CLIP_MODES,
    "loss": tuple(LOSSES),
}
_POSITIVE = (lambda value: _is_number(value) and value > 0, "a positive finite number")
_TEXT = (_is_text, "a text")
_DROPS = (
    lambda value: isinstance(value, tuple) and all(map(_is_drop, value)),
    "pairs of an epoch from 0 on and a positive factor",
)
_ENTRIES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("program", "function", "data", "data_dir", "storage", "init", "fold_coefficients"), _TEXT),
    **dict.fromkeys(("limit_train_size", "rank", "epochs", "batch_size", "checkpoint_steps", "fold_degree"), _from(1)),
    **dict.fromkeys(("lr", "clip", "checkpoint_seconds", "fold_tolerance"), _POSITIVE),
    "window": _from(0),
    **dict.fromkeys(("lr_drop", "clip_drop"), _DROPS),
    "settings": (lambda value: isinstance(value, Mapping), "a table of the program's keyword arguments"),
    "lr_mult": (_are_multipliers, "a table of parameters and finite multipliers from 0 on, such as {embed = 0.1}"),
    "weight_decay": (lambda value: _is_number(value) and value >= 0, "a finite number from 0 on"),
    "momentum": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 on and below 1"),
    "decay_follows_lr_mult": (lambda value: isinstance(value, bool), "true or false"),
    "seed": _from(0),
}
_OPTIONAL = (
    *("function", "data_dir", "limit_train_size", "storage", "init", "clip", "checkpoint_steps"),
    *("fold_degree", "fold_tolerance", "window", "fold_coefficients"),
)
