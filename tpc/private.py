"""Folders that nobody else can write to, for what is worth keeping between runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def private_folder(name: str) -> Path | None:
    """tpc/`name` in $XDG_CACHE_HOME or ~/.cache, the user's own; None where there is no such place."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    own = Path(base) / "tpc"
    folder = own / name
    if not own.is_absolute():  # it would be another one in every working folder
        return None
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        for part in (own, folder):  # in a folder that others may write to, they could replace ours
            part.mkdir(mode=0o700, exist_ok=True)
        if is_private(own) and is_private(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:  # no home, or a read-only one
        pass
    return None


def is_private(folder: Path) -> bool:
    """Whether the folder is the user's own and only the user may write to it."""
    found = folder.lstat()
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and own and not found.st_mode & 0o022
