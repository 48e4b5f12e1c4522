"""Downloads with progress, resumption and the published checksum; a file gets its name only when right.

What came of a download before stays until something better is there: a server that answers with another file, with
less of it, or not at all, loses none of it.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from tpc.data.part import Part
from tpc.data.source import Download, md5_of
from tpc.errors import DataError, UsageError
from tpc.runtime.files.lock import Lock

Progress = Callable[[int, int], None]
"""Called with the bytes there and the bytes wanted."""

CHUNK = 2**18
TIMEOUT = 30.0  # seconds without a byte
SLOW_SECONDS, SLOW_RATE = 60.0, 1000.0  # so few bytes a second for so long are no download
_COUNT = r"\d{1,18}"  # more digits are no size


def fetch(download: Download, folder: Path, *, url: str | None = None, progress: Progress | None = None) -> Path:
    """Download one file into `folder` and return its path; one already there with the right checksum is kept.

    An interrupted download stays as `<file>.part` and the next call continues it where the server can. `url`
    replaces the published address (a mirror); the published size and checksum hold all the same.
    Raises DataError where the server, the disk or the checksum fails, BusyError where another process downloads
    the file there, UsageError for an address of another scheme than HTTP.
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
        with Lock(folder / f"{download.file}.lock", str(part)):
            made = _receive(download, address, part, progress)
            os.replace(made, target)
            if made != part:
                part.unlink()
    except OSError as error:
        raise DataError(f"Cannot write {target}: {error.strerror or error}.") from error
    return target


def _receive(download: Download, address: str, path: Path, progress: Progress | None) -> Path:
    """The file with the published size and checksum, complete at `path` or beside it."""
    have = path.stat().st_size if path.is_file() else 0
    if have > download.size:
        path.unlink()
        have = 0
    if have == download.size:
        _require_right(path, download)
        return path
    _require_space(path.parent, download.size - have)
    with Part(path) as part:
        _fill(part, download, address, progress)
        if part.newest.stat().st_size < download.size:
            raise _stopped(part, download, "the server closed the connection")
        made = part.finish()
        got = md5_of(made)
        if got == download.md5:
            return made
        kept = part.give_up()
        raise DataError(
            f"What {address} sent is not {download.file}: expected the MD5 checksum {download.md5}, got {got}. "
            f"{_kept(path, kept)}\n"
            "  Fix: run the same command again; where it fails again, the server has another file"
            + (f", or {path} is part of one: remove it." if kept else ".")
        )


def _fill(part: Part, download: Download, address: str, progress: Progress | None) -> None:
    """Bring what the server sends to the disk."""
    try:
        with _open(address, part.have) as response:
            start = _start(response, part, download)
            _append(response, part, start, download, progress)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(error, part, download, address) from error
    except urllib.error.URLError as error:
        raise DataError(f"Cannot reach {address}: {error.reason}.") from error
    except TimeoutError as error:
        raise _stopped(part, download, f"the server sent nothing for {TIMEOUT:.0f} s") from error
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        raise _stopped(part, download, str(error) or type(error).__name__) from error


def _open(address: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "tpc"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT
        )
    except (http.client.InvalidURL, ValueError) as error:
        raise UsageError(f"{address!r} is not a usable address: {error}.") from error
    return response


def _start(response: http.client.HTTPResponse, part: Part, download: Download) -> int:
    """The offset of the first byte the server sends, once what it says of the file's size is the published one."""
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        sent = re.match(rf"bytes ({_COUNT})-{_COUNT}/({_COUNT}|\*)$", response.headers.get("Content-Range", ""))
        if not sent or int(sent[1]) > part.have:
            told = f"{response.url} answered with another part of the file than the one asked for."
            raise DataError(f"{told} {_kept(part.path, part.have)}")
        start, whole = int(sent[1]), sent[2]
    else:
        length = response.headers.get("Content-Length", "")
        start, whole = 0, length if re.fullmatch(_COUNT, length) else "*"
    if whole != "*" and int(whole) != download.size:
        kind = response.headers.get_content_type()
        raise DataError(
            f"{response.url} offers {int(whole):,} bytes ({kind}) where {download.file} has {download.size:,}: it is "
            f"another file. {_kept(part.path, part.have)}"
        )
    return start


def _append(
    response: http.client.HTTPResponse, part: Part, start: int, download: Download, progress: Progress | None
) -> None:
    done = since = start
    begun = time.monotonic()
    if progress:
        progress(done, download.size)
    while chunk := _next(response):
        if done + len(chunk) > download.size:
            kept = part.give_up()
            raise DataError(
                f"{response.url} sends more than the published {download.size:,} bytes. {_kept(part.path, kept)}"
            )
        part.write(done, chunk)
        done += len(chunk)
        if progress:
            progress(done, download.size)
        waited = time.monotonic() - begun
        if waited >= SLOW_SECONDS:
            if done - since < SLOW_RATE * waited:
                raise _stopped(part, download, f"the server sent {done - since:,} bytes in {waited:.0f} s")
            begun, since = time.monotonic(), done


def _next(response: http.client.HTTPResponse) -> bytes:
    """Whatever has come, and not a whole chunk: of a slow server nothing is lost, and all of it shows."""
    try:
        return response.read1(CHUNK)
    except TimeoutError:
        raise
    except OSError as error:  # not one of the disk
        raise ConnectionError(error.strerror or str(error)) from error


def _refused(error: urllib.error.HTTPError, part: Part, download: Download, address: str) -> DataError:
    if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        kept = f" {_kept(part.path, part.have)}" if part.have else ""
        return DataError(f"{address} answered {error.code} {error.reason}.{kept}")
    return DataError(
        f"{address} has a file that ends before byte {part.have:,}, where the download of {download.file} is to go "
        f"on: it is another file, or {part.path} is part of one. {_kept(part.path, part.have)}\n"
        f"  Fix: give another address (--url), or remove {part.path} to start over."
    )


def _kept(path: Path, size: int) -> str:
    return f"The {size:,} bytes in {path} are kept." if size else "Nothing was kept."


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(f"Not enough room in {folder}: {needed:,} bytes needed, {free:,} free.")


def _stopped(part: Part, download: Download, why: str) -> DataError:
    have = part.keep()
    return DataError(
        f"The download of {download.file} stopped after {have:,} of {download.size:,} bytes: {why}.\n"
        "  Fix: run the same command again; it continues from there."
    )


def _is_right(path: Path, download: Download) -> bool:
    return path.stat().st_size == download.size and md5_of(path) == download.md5


def _require_right(path: Path, download: Download) -> None:
    """Of a complete download that had not got its name."""
    got = md5_of(path)
    if got != download.md5:
        path.unlink()
        raise DataError(
            f"{path} is not {download.file}: expected the MD5 checksum {download.md5}, got {got}. It was removed.\n"
            "  Fix: run the same command again; it starts over."
        )
