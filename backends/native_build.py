"""C source to a loaded library: compiled once by the system's compiler and kept in a cache private to the user.

Flags keep the rules of floating point. In particular nothing is linked with -ffast-math, which would make subnormal
numbers zero in the whole process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from tpc.private import private_folder

FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math",
         "-ffp-contract=fast", "-fopenmp-simd")  # fmt: skip
MACHINE = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler knows


class NoCompilerError(Exception):
    """No C compiler was found, or it cannot compile, or the result cannot be loaded; the message says which."""


def load(source: str) -> ctypes.CDLL:
    """The library of a C source text. Raises NoCompilerError, whatever the reason."""
    command = compiler()
    try:
        key = _digest("\0".join([source, *command, *FLAGS, repr(MACHINE), _version(command), _cpu()]).encode())[:32]
        folder = cache()
        try:
            return _load(source, command, folder, key)
        except OSError:  # a full disk, or one from which nothing may run
            if folder == _temporary():
                raise
            return _load(source, command, _temporary(), key)
    except (OSError, ValueError) as e:
        reason = " ".join(str(e).split())
        raise NoCompilerError(f"what {' '.join(command)} compiled could not be loaded ({reason})") from e


def _load(source: str, command: tuple[str, ...], folder: Path, key: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(_verified(folder, key) or _build(source, command, folder, key)))


def compiler() -> tuple[str, ...]:
    """The words of the C compiler's command: $CC, else cc, gcc or clang."""
    chosen = os.environ.get("CC")
    if chosen:
        try:
            words = tuple(shlex.split(chosen))
        except ValueError as e:
            raise NoCompilerError(f"the C compiler {chosen!r} of $CC is no command ({e})") from e
        if not words or shutil.which(words[0]) is None:
            raise NoCompilerError(f"the C compiler {chosen!r} of $CC was not found")
        return words
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return (name,)
    raise NoCompilerError("no C compiler was found (cc, gcc, clang or $CC)")


def cache() -> Path:
    """A folder nobody else can write to: tpc/native in $XDG_CACHE_HOME or ~/.cache, else a temporary one."""
    return private_folder("native") or _temporary()


@lru_cache(maxsize=1)
def _temporary() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="tpc-native-")
    _temporary_folders.append(folder)
    return Path(folder.name)


_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def _verified(folder: Path, key: str) -> Path | None:
    """The library of a key, if its bytes are those whose digest is in its name; others are removed."""
    for path in sorted(folder.glob(f"{key}-*.so")):
        try:
            regular = stat.S_ISREG(path.lstat().st_mode)
            if regular and path.stem == f"{key}-{_digest(path.read_bytes())}":
                return path
            path.unlink()
        except OSError:  # another process was faster
            continue
    return None


def _build(source: str, command: tuple[str, ...], folder: Path, key: str) -> Path:
    """Compile into a folder of its own and move the result to its place, so that nobody sees half a library."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as work:
        text, compiled, library = (Path(work) / name for name in ("limit.c", "limit.o", "limit.so"))
        text.write_text(source, encoding="utf-8")
        for machine in MACHINE:
            failure = _run([*command, *FLAGS, *machine, "-c", str(text), "-o", str(compiled)])
            if failure is None:
                break
        failure = failure or _run([*command, "-shared", "-pthread", str(compiled), "-o", str(library), "-lm"])
        if failure is None and not library.exists():
            failure = "it made no library"
        if failure is not None:
            raise NoCompilerError(f"{' '.join(command)} could not compile ({failure})")
        place = folder / f"{key}-{_digest(library.read_bytes())}.so"
        os.chmod(library, 0o600)
        os.replace(library, place)
    return place


def _output(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, encoding="utf-8", errors="replace", check=False)


def _run(arguments: list[str]) -> str | None:
    """Run a command; the first line of its complaint if it fails."""
    try:
        done = _output(arguments)
    except OSError as e:
        return str(e)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    """What the compiler says it is."""
    try:
        return _output([*command, "--version"]).stdout
    except OSError as e:
        raise NoCompilerError(f"the C compiler {' '.join(command)} does not run ({e})") from e


@lru_cache(maxsize=1)
def _cpu() -> str:
    """What -march=native depends on."""
    names = [platform.machine(), platform.processor(), sys.platform]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            lines = f.read().split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = []
    return "\n".join(names + [line for line in lines if line.split("\t")[0] in ("model name", "flags", "Features")])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
