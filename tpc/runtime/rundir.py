"""A run directory: config.toml, metrics.jsonl, checkpoints/, plots/, report.html, the program."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import tomli_w

from tpc.errors import DataError, UsageError, UserError, did_you_mean
from tpc.runtime.checkpoint import CheckpointStore, write_atomic
from tpc.runtime.position import is_whole_state

CONFIG, METRICS, PROGRAM, REPORT = "config.toml", "metrics.jsonl", "program.py", "report.html"
CHECKPOINTS, PLOTS = "checkpoints", "plots"
_OURS = (METRICS, PROGRAM, REPORT, CHECKPOINTS, PLOTS, CONFIG)  # in the order of removal: config names a run

_NEEDED = {  # what the report reads of a record, by its kind
    "step": ("step", "loss", "accuracy"),
    "epoch": (
        *("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("atoms", "bytes", "seconds"),
    ),
}
_ON_VALIDATION = {"test_loss": "validation_loss", "test_accuracy": "validation_accuracy"}  # measured instead


class RunDir:
    """Paths, settings and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointStore(path / CHECKPOINTS, whole=is_whole_state)
        self.config_path = path / CONFIG
        self.metrics_path = path / METRICS
        self.program_path = path / PROGRAM
        self.report_path = path / REPORT
        self.plots_path = path / PLOTS

    def read_config(self) -> dict[str, Any]:
        """The settings of the run, as its command recorded them."""
        try:
            return tomllib.loads(self.config_path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.config_path} is not valid TOML: {error}") from error

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record the settings; entries that are None are left out (TOML has no null)."""
        write_atomic(self.config_path, tomli_w.dumps(_without_none(config)))

    def read_metrics(self, size: int | None = None) -> list[dict[str, Any]]:
        """All whole records of metrics.jsonl; a torn last line of a killed run is passed over.

        With `size`, the records in that many bytes, which a checkpoint says were whole. Raises DataError for a
        damaged file.
        """
        if not self.metrics_path.exists():
            return []
        data = self.metrics_path.read_bytes()[:size]
        if size is not None and data and not data.endswith(b"\n"):
            raise _damaged(self.metrics_path, data.count(b"\n") + 1, "ends in the middle of a record")
        return [_record(self.metrics_path, i, line) for i, line in enumerate(data.split(b"\n")[:-1], 1)]


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:  # not UTF-8 or not JSON
        raise _damaged(path, number, f"is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _damaged(path, number, "is not a record")
    needed = _NEEDED.get(str(record.get("kind")), ())
    missing = [name for name in needed if name not in record and _ON_VALIDATION.get(name) not in record]
    if missing:
        raise _damaged(path, number, f"lacks {', '.join(missing)}")
    return record


def _damaged(path: Path, number: int, what: str) -> DataError:
    return DataError(
        f"{path} is damaged: line {number} {what}. Mend the line, or move the file away to go on without its records."
    )


def check_free(path: Path, overwrite: bool) -> None:
    """Raise UsageError unless a new run may be written to `path`."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"--out {path} is a file; give a directory that does not exist yet.")
    entries = sorted(entry.name for entry in path.iterdir())
    if entries and CONFIG not in entries:
        raise UsageError(
            f"--out {path} exists and is not a run directory (it holds {entries[0]}); give another directory."
        )
    if entries and not overwrite:
        raise UsageError(
            f"{path} already holds a run. Go on with it by --resume {path}, replace it by --overwrite, "
            "or give another --out."
        )


def create(path: Path | None, name: str, overwrite: bool = False) -> RunDir:
    """Make a fresh run directory: `path`, or runs/<name>-<n> with the first free n."""
    if path is not None:
        check_free(path, overwrite)
        path.mkdir(parents=True, exist_ok=True)
        for entry in _OURS:
            _remove(path / entry)
        return RunDir(path)
    number = 1
    while True:
        candidate = Path("runs") / f"{name}-{number}"
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return RunDir(candidate)


def open_run(path: Path) -> RunDir:
    """An existing run directory; UsageError when `path` is not one."""
    if not (path / CONFIG).is_file():
        what = "does not exist" if not path.exists() else f"has no {CONFIG}"
        hint = did_you_mean(str(path), (str(file.parent) for file in path.parent.glob(f"*/{CONFIG}")))
        raise UsageError(f"{path} is not a run directory: it {what}. `tpc train` makes one under runs/.{hint}")
    return RunDir(path)


class MetricsLog:
    """Appends one JSON object per line, each line flushed.

    `size` is the length a checkpoint recorded: what a killed run wrote after it is cut off, so that a
    resumed run has no line twice.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(min(size, self._file.seek(0, os.SEEK_END)))
        self._file.seek(0, os.SEEK_END)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; numbers that are not finite become null. Raises UserError when the disk is full."""
        try:
            self._file.write(json.dumps(_finite(record)).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write to {self._path}: {error.strerror or error}.") from error

    def sync(self) -> int:
        """Wait until everything is on the disk; returns the length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # every record was flushed, or its failure told, when it was written
            self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _without_none(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if value is not None
    }


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
