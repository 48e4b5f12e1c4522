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
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from tpc.private import private_folder

FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math",
         "-ffp-contract=fast", "-fopenmp-simd")  # fmt: skip
MACHINE = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler knows
PATIENCE = 300.0  # seconds for one run of the compiler: large programs take it half a minute
NOTICE = 20.0  # seconds after which a run of the compiler is told
ANSWER = 20.0  # seconds to say its version, and for a library to load
PROBE = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


class NoCompilerError(Exception):
    """No C compiler was found, or it cannot compile, or the result cannot be loaded; the message says which."""


def load(source: str) -> ctypes.CDLL:
    """The library of a C source text. Raises NoCompilerError, whatever the reason."""
    command = compiler()
    if command[0] in _hung:
        raise NoCompilerError(f"the C compiler {command[0]} did not end before")
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
        _require_loadable(library, command)
        place = folder / f"{key}-{_digest(library.read_bytes())}.so"
        os.chmod(library, 0o600)
        os.replace(library, place)
    return place


def _require_loadable(library: Path, command: tuple[str, ...]) -> None:
    """Load a new library in another process first: sanitizers and the like end the process that loads them."""
    if not sys.executable:
        return
    try:
        done = _output([sys.executable, "-I", "-S", "-c", PROBE, str(library)], ANSWER)
    except subprocess.TimeoutExpired:
        reason = f"loading it took longer than {ANSWER:.0f} s"
    else:
        if done.returncode == 0:
            return
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        last = said and said[0].startswith("Traceback")  # an OSError; whatever ends a process says so in its first line
        reason = said[-1 if last else 0] if said else _ended(done.returncode)
    raise NoCompilerError(f"what {' '.join(command)} compiled could not be loaded ({reason})")


def _ended(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"it was ended by {signal.Signals(-code).name}"


def _output(arguments: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises OSError if it does not run, TimeoutExpired if it does not end in time."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = _communicated(process, arguments[0], seconds)
        except BaseException:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started keeps the pipes open
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _communicated(process: subprocess.Popen[str], name: str, seconds: float) -> tuple[str, str]:
    if seconds > NOTICE:
        try:
            return process.communicate(timeout=NOTICE)
        except subprocess.TimeoutExpired:
            told = f"{name} has been compiling for {NOTICE:.0f} s; it is given up after {seconds:.0f} s"
            print(told, file=sys.stderr, flush=True)
    return process.communicate(timeout=max(0.0, seconds - NOTICE) if seconds > NOTICE else seconds)


_hung: set[str] = set()  # compilers that did not end: they are not asked again


def _run(arguments: list[str]) -> str | None:
    """Run a command; the first line of its complaint if it fails. Raises NoCompilerError if it does not end."""
    try:
        done = _output(arguments, PATIENCE)
    except subprocess.TimeoutExpired as e:
        raise _hangs(arguments[0], PATIENCE) from e
    except OSError as e:
        return str(e)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


def _hangs(command: str, seconds: float) -> NoCompilerError:
    _hung.add(command)
    return NoCompilerError(f"the C compiler {command} did not end within {seconds:.0f} s")


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    """What the compiler says it is."""
    try:
        return _output([*command, "--version"], ANSWER).stdout
    except subprocess.TimeoutExpired as e:
        raise _hangs(command[0], ANSWER) from e
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
