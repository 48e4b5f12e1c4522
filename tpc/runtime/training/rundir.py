"""A run directory: config.toml, metrics.jsonl, checkpoints/, plots/, report.html, the program."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from tpc.errors import DataError, UsageError, did_you_mean
from tpc.runtime.files.lock import NAME as LOCK
from tpc.runtime.files.lock import Lock, require_free
from tpc.runtime.files.whole import write_atomic, writing
from tpc.runtime.training import metrics
from tpc.runtime.training.checkpoint import CheckpointStore
from tpc.runtime.training.metrics import MetricsLog as MetricsLog
from tpc.runtime.training.position import defect
from tpc.runtime.training.progress import warn

CONFIG, METRICS, PROGRAM, REPORT = "config.toml", "metrics.jsonl", "program.py", "report.html"
CHECKPOINTS, PLOTS = "checkpoints", "plots"
REPLACED = ".replaced"  # the run that --overwrite replaces, until the new one has a checkpoint
_OURS = (METRICS, METRICS + metrics.DAMAGED, PROGRAM, REPORT, CHECKPOINTS, PLOTS, CONFIG)
_HIDDEN = (LOCK, REPLACED)


class RunDir:
    """Paths, settings and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointStore(path / CHECKPOINTS, defect=defect)
        self.config_path = path / CONFIG
        self.metrics_path = path / METRICS
        self.program_path = path / PROGRAM
        self.report_path = path / REPORT
        self.plots_path = path / PLOTS
        self.lock_path = path / LOCK

    def lock(self) -> Lock:
        """The lock of whoever writes here; those who read need none."""
        return Lock(self.lock_path, str(self.path))

    def require_free(self) -> None:
        """Raise BusyError, quickly, if a process writes here."""
        require_free(self.lock_path, str(self.path))

    def read_config(self) -> dict[str, Any]:
        """The settings of the run, as its command recorded them."""
        try:
            return tomllib.loads(self.config_path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.config_path} is not valid TOML: {error}") from error

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record the settings; entries that are None are left out (TOML has no null)."""
        write_atomic(self.config_path, tomli_w.dumps(without_none(config)))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole records of metrics.jsonl. Raises DataError for a damaged file."""
        return metrics.read(self.metrics_path)

    def discard(self) -> None:
        """Remove what a run without a checkpoint has left; the run it was to replace comes back."""
        for entry in _OURS:
            _remove(self.path / entry)
        replaced = self.path / REPLACED
        if replaced.is_dir():
            for path in replaced.iterdir():
                path.rename(self.path / path.name)
            replaced.rmdir()

    def settle(self) -> None:
        """Drop the run that this one replaced if this one has a checkpoint, else bring it back."""
        if not (self.path / REPLACED).is_dir():
            return
        if self.checkpoints.newest() is not None:
            self.commit()
        else:
            self.discard()
            warn([f"{self.path}: the run that was to replace the one there wrote no checkpoint; the old one is back"])

    def commit(self) -> None:
        """Drop the run that this one replaced."""
        _remove(self.path / REPLACED)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise UsageError unless a new run may be written to `path`, BusyError if a process writes there."""
    if path.is_dir():
        RunDir(path).require_free()
    _check_entries(path, overwrite)


def _check_entries(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"--out {path} is a file; give a directory that does not exist yet.")
    entries = sorted(entry.name for entry in path.iterdir() if entry.name not in _HIDDEN)
    if entries and CONFIG not in entries:
        raise UsageError(
            f"--out {path} exists and is not a run directory (it holds {entries[0]}); give another directory."
        )
    if entries and not overwrite:
        raise UsageError(
            f"{path} already holds a run. Go on with it by --resume {path}, replace it by --overwrite, "
            "or give another --out."
        )


@contextmanager
def claim(path: Path | None, overwrite: bool = False) -> Iterator[None]:
    """Keep the place of a new run from all other processes, from before its work begins.

    A directory made for it goes if nothing is in it at the end. Nothing is claimed without a path.
    """
    if path is None:
        yield
        return
    check_free(path, overwrite)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    try:
        with RunDir(path).lock():
            RunDir(path).settle()
            _check_entries(path, overwrite)  # again: a process may have ended here since
            yield
    finally:
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def create(path: Path | None, name: str, overwrite: bool = False) -> RunDir:
    """Make a fresh run directory: `path`, or runs/<name>-<n> with the first free n.

    A run that is replaced is kept until `settle` finds a checkpoint of the new one.
    """
    if path is not None:
        _check_entries(path, overwrite)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            _set_aside(path)
        return RunDir(path)
    number = 1
    while True:
        candidate = Path("runs") / f"{name}-{number}"
        with writing(candidate):
            try:
                candidate.mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                return RunDir(candidate)


def _set_aside(path: Path) -> None:
    found = [path / entry for entry in _OURS if (path / entry).exists()]
    if found:
        (path / REPLACED).mkdir()
        for entry in found:
            entry.rename(path / REPLACED / entry.name)


def open_run(path: Path) -> RunDir:
    """An existing run directory; UsageError when `path` is not one."""
    if not (path / CONFIG).is_file() and not (path / REPLACED / CONFIG).is_file():
        RunDir(path).require_free()  # a run that has just begun
        what = "does not exist" if not path.exists() else f"has no {CONFIG}"
        hint = did_you_mean(str(path), (str(file.parent) for file in path.parent.glob(f"*/{CONFIG}")))
        raise UsageError(f"{path} is not a run directory: it {what}. `tpc train` makes one under runs/.{hint}")
    return RunDir(path)


def without_none(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that TOML can hold, which has no null."""
    return {
        key: without_none(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if value is not None
    }


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
