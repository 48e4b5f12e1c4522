"""Crash-safe checkpoints: a directory per checkpoint, made complete before it gets its name.

    checkpoints/epoch-002-step-000001250/model.npz     whatever `model.save` writes
    checkpoints/epoch-002-step-000001250/state.json    where training stands, sizes and CRC-32

Both files are written and synced under a temporary name, then the directory is renamed, which POSIX makes
atomic. A killed process therefore leaves either the new checkpoint or none of it, and the older one always.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpc.errors import DataError
from tpc.runtime.files.whole import put, sync, writing
from tpc.runtime.files.whole import write_atomic as write_atomic
from tpc.runtime.training.progress import warn

MODEL_FILE = "model.npz"
STATE_FILE = "state.json"
_NAME = re.compile(r"epoch-(\d{1,18})-step-(\d{1,18})$")
_UNFINISHED = ".unfinished-"
_CHECKSUM = "state_crc32"


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

    `defect` says what is wrong with the state of a checkpoint, which then counts as damaged.
    """

    def __init__(
        self, directory: Path, keep: int = 2, defect: Callable[[dict[str, Any]], str] = lambda state: ""
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.defect = defect

    def write(self, epoch: int, step: int, state: dict[str, Any], save_model: Callable[[Path], None]) -> Path:
        """Write the checkpoint of `step` in `epoch`; older ones are dropped only after it is complete.

        Training is deterministic, so a whole checkpoint that is already there is left as it is.
        Raises WriteError when the disk is full or the place cannot be written; the older checkpoints stay, and
        nothing of this one.
        """
        final = self.directory / f"epoch-{epoch:03d}-step-{step:09d}"
        with writing(f"the checkpoint of step {step} to {self.directory}"):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if final.exists():
                if isinstance(self._read(final), Checkpoint):
                    return final
                _discard(final)
            try:
                self._write(final, state, save_model)
            except OSError:
                with suppress(OSError):
                    self._sweep()
                raise
            for old in self._names()[self.keep :]:
                _discard(old)
        return final

    def _write(self, final: Path, state: dict[str, Any], save_model: Callable[[Path], None]) -> None:
        unfinished = self.directory / f"{_UNFINISHED}{final.name}"
        unfinished.mkdir()
        model = unfinished / MODEL_FILE
        save_model(model)
        sync(model)
        record = {**state, "model_bytes": model.stat().st_size, "model_crc32": _crc32(model)}
        record[_CHECKSUM] = _checksum(record)
        put(unfinished / STATE_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
        sync(unfinished)
        os.replace(unfinished, final)
        sync(self.directory)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are whole, or None; damaged ones are passed over."""
        return next((found for found in map(self._read, self._names()) if isinstance(found, Checkpoint)), None)

    def whole(self) -> list[Checkpoint]:
        """All checkpoints whose files are whole, the newest first."""
        return [found for found in map(self._read, self._names()) if isinstance(found, Checkpoint)]

    def require(self) -> Checkpoint:
        """`newest`, with a warning for every one passed over; a DataError that says what was found if there is none."""
        damaged: list[str] = []
        for path in self._names():
            found = self._read(path)
            if isinstance(found, Checkpoint):
                warn(f"{told}; {path.name} is taken instead" for told in damaged)
                return found
            if path.exists():  # or it was dropped by a process that trains
                damaged.append(f"the checkpoint {path} is damaged: {found}")
        told = "\n  ".join(["found only damaged ones:", *damaged]) if damaged else "found none."
        raise DataError(f"no usable checkpoint in {self.directory}: {told}\n  Fix: start the run again.")

    def _names(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        found = [
            (int(match[1]), int(match[2]), path)
            for path in self.directory.iterdir()
            if (match := _NAME.match(path.name))
        ]
        return [path for *_, path in sorted(found, reverse=True)]

    def _read(self, path: Path) -> Checkpoint | str:
        """The checkpoint of a directory, or what is wrong with it."""
        model = path / MODEL_FILE
        try:
            state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"), parse_constant=_no_number)
            told = self.defect(state)
            if told:
                return f"{STATE_FILE}: {told}"
            if state.get(_CHECKSUM, _checksum(state)) != _checksum(state):
                return f"{STATE_FILE} was changed: its checksum is another"
            if model.stat().st_size != state["model_bytes"]:
                return f"{MODEL_FILE} has {model.stat().st_size:,} bytes of {state['model_bytes']:,}"
            if _crc32(model) != state["model_crc32"]:
                return f"{MODEL_FILE} was changed: its checksum is another"
        except OSError as error:
            return f"{Path(error.filename or path).name}: {error.strerror}"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{STATE_FILE} is not what was written there ({type(error).__name__}: {error})"
        return Checkpoint(path, state)

    def _sweep(self) -> None:
        for path in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _checksum(state: Mapping[str, Any]) -> int:
    text = json.dumps({name: value for name, value in state.items() if name != _CHECKSUM}, sort_keys=True)
    return zlib.crc32(text.encode())


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
