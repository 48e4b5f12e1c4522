"""A run directory: config.toml, metrics.jsonl, checkpoints/, plots/, report.html, the program."""

from __future__ import annotations

import json
import math
import os
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import tomli_w

from tpc.errors import DataError, UsageError
from tpc.runtime.checkpoint import CheckpointStore, write_atomic

CONFIG, METRICS, PROGRAM, REPORT = "config.toml", "metrics.jsonl", "program.py", "report.html"
CHECKPOINTS, PLOTS = "checkpoints", "plots"
_OURS = (METRICS, PROGRAM, REPORT, CHECKPOINTS, PLOTS, CONFIG)  # in the order of removal: config names a run


class RunDir:
    """Paths, settings and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointStore(path / CHECKPOINTS)
        self.metrics_path = path / METRICS
        self.program_path = path / PROGRAM
        self.report_path = path / REPORT
        self.plots_path = path / PLOTS

    def read_config(self) -> dict[str, Any]:
        """The settings of the run, as `tpc train` recorded them."""
        try:
            return tomllib.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise DataError(f"{self.path / CONFIG} is not valid TOML: {error}") from error

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record the settings; entries that are None are left out (TOML has no null)."""
        write_atomic(self.path / CONFIG, tomli_w.dumps(_without_none(config)))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole records of metrics.jsonl; a torn last line of a killed run is passed over."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").split("\n")
        try:
            return [json.loads(line) for line in lines[:-1]]
        except json.JSONDecodeError as error:
            raise DataError(f"{self.metrics_path} holds a line that is not JSON: {error}") from error


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
        raise UsageError(f"{path} is not a run directory: it {what}. `tpc train` makes one under runs/.")
    return RunDir(path)


class MetricsLog:
    """Appends one JSON object per line, each line flushed.

    `size` is the length a checkpoint recorded: what a killed run wrote after it is cut off, so that a
    resumed run has no line twice.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(min(size, self._file.seek(0, os.SEEK_END)))
        self._file.seek(0, os.SEEK_END)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; numbers that are not finite become null."""
        self._file.write(json.dumps(_finite(record)).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Wait until everything is on the disk; returns the length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
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
