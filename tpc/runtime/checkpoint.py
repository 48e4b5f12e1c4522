"""Crash-safe checkpoints: a directory per checkpoint, made complete before it gets its name.

    checkpoints/epoch-002-step-000001250/model.npz     whatever `model.save` writes
    checkpoints/epoch-002-step-000001250/state.json    where training stands, size and CRC-32 of the model

Both files are written and synced under a temporary name, then the directory is renamed, which POSIX makes
atomic. A killed process therefore leaves either the new checkpoint or none of it, and the older one always.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpc.errors import DataError, UserError

MODEL_FILE = "model.npz"
STATE_FILE = "state.json"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)$")
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the path of its model file and the training state stored beside it."""

    path: Path
    state: dict[str, Any]

    @property
    def model_path(self) -> Path:
        return self.path / MODEL_FILE


class CheckpointStore:
    """The checkpoints of one run; keeps the newest `keep` complete ones.

    A checkpoint whose state is not `whole` counts as damaged.
    """

    def __init__(
        self, directory: Path, keep: int = 2, whole: Callable[[dict[str, Any]], bool] = lambda state: True
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.whole = whole

    def write(self, epoch: int, step: int, state: dict[str, Any], save_model: Callable[[Path], None]) -> Path:
        """Write the checkpoint of `step` in `epoch`; older ones are dropped only after it is complete.

        Training is deterministic, so a whole checkpoint that is already there is left as it is.
        Raises UserError when the disk is full or the place cannot be written; the older checkpoints stay.
        """
        try:
            return self._write(epoch, step, state, save_model)
        except OSError as error:
            raise UserError(
                f"cannot write the checkpoint of step {step} to {self.directory}: {error.strerror or error}. "
                "Checkpoints written before stay usable; make room and go on with tpc train --resume "
                f"{self.directory.parent}"
            ) from error

    def _write(self, epoch: int, step: int, state: dict[str, Any], save_model: Callable[[Path], None]) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        final = self.directory / f"epoch-{epoch:03d}-step-{step:09d}"
        if final.exists():
            if self._read(final) is not None:
                return final
            _discard(final)
        unfinished = self.directory / f"{_UNFINISHED}{final.name}"
        unfinished.mkdir()
        model = unfinished / MODEL_FILE
        save_model(model)
        _sync(model)
        record = {**state, "model_bytes": model.stat().st_size, "model_crc32": _crc32(model)}
        write_synced(unfinished / STATE_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
        _sync(unfinished)
        os.replace(unfinished, final)
        _sync(self.directory)
        for old in self._names()[self.keep :]:
            _discard(old)
        return final

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are whole, or None; damaged ones are passed over."""
        for path in self._names():
            checkpoint = self._read(path)
            if checkpoint is not None:
                return checkpoint
        return None

    def require(self) -> Checkpoint:
        """`newest`, or a DataError that says what was found."""
        checkpoint = self.newest()
        if checkpoint is None:
            damaged = self._names()
            found = f"only damaged ones: {', '.join(p.name for p in damaged)}" if damaged else "none"
            raise DataError(f"no usable checkpoint in {self.directory}: found {found}. Start the run again.")
        return checkpoint

    def _names(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        found = [
            (int(match[1]), int(match[2]), path)
            for path in self.directory.iterdir()
            if (match := _NAME.match(path.name))
        ]
        return [path for *_, path in sorted(found, reverse=True)]

    def _read(self, path: Path) -> Checkpoint | None:
        model = path / MODEL_FILE
        try:
            state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
            right = model.stat().st_size == state["model_bytes"] and _crc32(model) == state["model_crc32"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Checkpoint(path, state) if right and self.whole(state) else None

    def _sweep(self) -> None:
        for path in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)


def write_synced(path: Path, text: str) -> None:
    """Write `text` and wait until it is on the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: readers and crashes see the old text or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    write_synced(temporary, text)
    os.replace(temporary, path)
    _sync(path.parent)


def _discard(path: Path) -> None:
    # Renamed first: a crash in the middle of the removal must not leave half a checkpoint under a valid name.
    doomed = path.with_name(f"{_UNFINISHED}{path.name}.old")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
