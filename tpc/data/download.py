"""Downloads with progress, resumption and the published checksum; a file gets its name only when right."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from tpc.data.source import Download, md5_of
from tpc.errors import DataError, UsageError

Progress = Callable[[int, int], None]
"""Called with the bytes there and the bytes wanted."""

CHUNK = 2**18
TIMEOUT = 30.0  # seconds without a byte


def fetch(download: Download, folder: Path, *, url: str | None = None, progress: Progress | None = None) -> Path:
    """Download one file into `folder` and return its path; one already there with the right checksum is kept.

    An interrupted download stays as `<file>.part` and the next call continues it where the server can. `url`
    replaces the published address (a mirror); the published size and checksum hold all the same.
    Raises DataError where the server, the disk or the checksum fails, UsageError for an address of another
    scheme than HTTP.
    """
    address = url or download.url
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"Expected an http:// or https:// address, got {address!r}.")
    target, part = folder / download.file, folder / f"{download.file}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() or part.is_dir():
            raise DataError(f"Cannot write {target}: a folder of that name is in the way.")
        if target.is_file() and _is_right(target, download):
            return target
        _receive(download, address, part, progress)
        _require_right(part, download, address)
        os.replace(part, target)
    except OSError as error:
        raise DataError(f"Cannot write {target}: {error.strerror or error}.") from error
    return target


def _receive(download: Download, address: str, part: Path, progress: Progress | None) -> None:
    """Bring `part` to the published size."""
    have = part.stat().st_size if part.is_file() else 0
    if have > download.size:
        part.unlink()
        have = 0
    if have == download.size:
        return
    _require_space(part.parent, download.size - have)
    try:
        with _open(address, have) as response:
            start = _start(response, have)
            _append(response, download, part, start, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise DataError(
                f"{address} has a shorter file than the partial download, which was removed.\n"
                "  Fix: run the same command again."
            ) from error
        raise DataError(f"{address} answered {error.code} {error.reason}.") from error
    except urllib.error.URLError as error:
        raise DataError(f"Cannot reach {address}: {error.reason}.") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _stopped(part, download, str(error) or type(error).__name__) from error
    if part.stat().st_size < download.size:
        raise _stopped(part, download, "the server closed the connection")


def _open(address: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "tpc"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT
        )
    except (http.client.InvalidURL, ValueError) as error:
        raise UsageError(f"{address!r} is not a usable address: {error}.") from error
    return response


def _start(response: http.client.HTTPResponse, have: int) -> int:
    """The offset of the first byte the server sends: `have` where it resumes, 0 where it starts over."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0
    sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not sent or int(sent[1]) > have:
        raise DataError(f"{response.url} answered with another part of the file than the one asked for.")
    return int(sent[1])


def _append(
    response: http.client.HTTPResponse, download: Download, part: Path, start: int, progress: Progress | None
) -> None:
    with part.open("r+b" if part.exists() else "wb") as stream:
        stream.truncate(start)
        stream.seek(start)
        done = start
        if progress:
            progress(done, download.size)
        while chunk := response.read(CHUNK):
            done += len(chunk)
            if done > download.size:
                stream.close()
                part.unlink()
                raise DataError(
                    f"{response.url} sends more than the published {download.size:,} bytes. Nothing was kept."
                )
            stream.write(chunk)
            if progress:
                progress(done, download.size)
        stream.flush()
        os.fsync(stream.fileno())


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(f"Not enough room in {folder}: {needed:,} bytes needed, {free:,} free.")


def _stopped(part: Path, download: Download, why: str) -> DataError:
    have = part.stat().st_size if part.is_file() else 0
    if not have:
        part.unlink(missing_ok=True)
    return DataError(
        f"The download of {download.file} stopped after {have:,} of {download.size:,} bytes: {why}.\n"
        "  Fix: run the same command again; it continues from there."
    )


def _is_right(path: Path, download: Download) -> bool:
    return path.stat().st_size == download.size and md5_of(path) == download.md5


def _require_right(part: Path, download: Download, address: str) -> None:
    got = md5_of(part)
    if got != download.md5:
        part.unlink()
        raise DataError(
            f"What {address} sent is not {download.file}: expected the MD5 checksum {download.md5}, "
            f"got {got}. Nothing was kept.\n"
            "  Fix: run the same command again; where it fails again, the server has another file."
        )
