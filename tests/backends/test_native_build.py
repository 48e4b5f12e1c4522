"""The compiler's cache: reuse, tampering, permissions, races, no compiler; and what loading leaves alone."""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tpc
from backends import native_backend, native_build, native_dense, native_powers, native_workers

ROOT = Path(__file__).parents[2]
SOURCE = '__attribute__((visibility("default"))) int answer(void) { return %d; }\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tpc" / "native"


@pytest.fixture
def builds(monkeypatch):
    """Counts the libraries built."""
    built = []
    build = native_build._build

    def counted(*args):
        built.append(args[0])
        return build(*args)

    monkeypatch.setattr(native_build, "_build", counted)
    return built


def answer(number):
    return native_build.load(SOURCE % number).answer()


def test_a_text_is_compiled_once(folder, builds):
    assert [answer(n) for n in (1, 2, 1, 2)] == [1, 2, 1, 2]
    assert len(builds) == 2
    assert len(list(folder.iterdir())) == 2


def test_the_cache_is_private(folder):
    answer(3)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(not path.stat().st_mode & 0o077 for path in folder.iterdir())


def half(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [half, flipped, lambda data: b""])
def test_a_damaged_entry_is_rebuilt_and_not_loaded(folder, builds, damage):
    native_build.load(SOURCE % 4)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(whole))
    assert answer(4) == 4
    assert len(builds) == 2
    (path,) = folder.iterdir()
    assert path.read_bytes() == whole or len(path.read_bytes()) == len(whole)


def test_another_library_in_its_place_is_not_loaded(folder, builds):
    native_build.load(SOURCE % 5)
    (path,) = folder.iterdir()
    data = path.read_bytes()
    path.unlink()
    native_build.load(SOURCE % 66)
    (other,) = folder.iterdir()
    path.write_bytes(other.read_bytes())
    assert answer(5) == 5
    assert len(builds) == 3
    assert path.read_bytes() == data


def test_a_link_is_not_followed(folder, tmp_path, builds):
    native_build.load(SOURCE % 7)
    (path,) = folder.iterdir()
    path.rename(tmp_path / "elsewhere.so")
    path.symlink_to(tmp_path / "elsewhere.so")
    assert answer(7) == 7
    assert len(builds) == 2
    assert not path.is_symlink()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_not_used(folder, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert answer(8) == 8
    assert not list(folder.iterdir())
    assert native_build.cache() == native_build.cache() != folder
    assert native_build.cache().stat().st_mode & 0o077 == 0


def test_a_folder_of_another_user_is_not_used(folder, monkeypatch):
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert answer(9) == 9
    assert not list(folder.iterdir())


def test_no_place_for_a_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert answer(10) == 10


def test_builds_at_the_same_time(folder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(answer(11))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [11] * 4
    assert all(path.suffix == ".so" for path in folder.iterdir())


def test_other_flags_are_another_entry(folder, monkeypatch):
    answer(12)
    monkeypatch.setattr(native_build, "FLAGS", (*native_build.FLAGS, "-DOTHER"))
    answer(12)
    assert len(list(folder.iterdir())) == 2


# --- no compiler -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_warning():
    native_backend._warn.cache_clear()
    yield
    native_backend._warn.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "was not found"), ("false", "could not compile"), ("", "no C comp"),
        ("true", "it made no library"), ("echo", "it made no library"), ("gcc 'x", "No closing quotation"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_without_a_compiler_numpy_runs(
    folder, monkeypatch, capsys, fresh_warning, programs_dir, compiler, reason, storage
):
    if compiler:
        monkeypatch.setenv("CC", compiler)
    else:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(folder))
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=3))
    models = [limit.build(5, 4, backend=b, storage=s) for b, s in (("native", storage), ("numpy", "float32"))]
    x = np.random.default_rng(0).standard_normal((6, 5))
    for _ in range(3):
        for model in models:
            model.step(x, np.arange(6) % 3, lr=0.1)
    first, second = (model.predict(x) for model in models)
    if storage == "float32":
        np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, second, atol=0.02)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith("warning: ")
    assert reason in warning
    assert "NumPy" in warning


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Makes a shell script the compiler; what it had been taken for before is forgotten."""
    native_build._version.cache_clear()
    monkeypatch.setattr(native_build, "_hung", set())

    def written(text):
        path = tmp_path / "own-cc"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        monkeypatch.setenv("CC", str(path))

    yield written
    native_build._version.cache_clear()


HANGS = 'sleep 60 & echo $! >> "$0.pids"; wait'
ANSWERS = '[ "$1" = --version ] && exit 0\n'


@pytest.mark.parametrize("text", [HANGS, ANSWERS + HANGS, ANSWERS + "cat"], ids=["at all", "compiling", "reading"])
def test_a_compiler_that_hangs_is_given_up_with_its_children(folder, script, monkeypatch, tmp_path, text):
    monkeypatch.setattr(native_build, "PATIENCE", 0.5)
    monkeypatch.setattr(native_build, "ANSWER", 0.5)
    script(text)
    started = time.monotonic()
    for told in ("did not end within 0 s", "did not end before") if "sleep" in text else ("made no library",) * 2:
        with pytest.raises(native_build.NoCompilerError, match=told):
            answer(17)
    assert time.monotonic() - started < 5
    pids = tmp_path / "own-cc.pids"
    for pid in pids.read_text().split() if pids.exists() else ():
        with contextlib.suppress(FileNotFoundError):
            while ") Z" not in Path(f"/proc/{pid}/stat").read_text():  # a zombie that nobody has asked for is as good
                assert time.monotonic() - started < 20
                time.sleep(0.01)


def test_a_long_compilation_is_told(folder, script, monkeypatch, capsys):
    monkeypatch.setattr(native_build, "NOTICE", 0.1)
    script('[ "$1" = --version ] || sleep 0.5\nexec gcc "$@"')
    assert answer(20) == 20
    assert "has been compiling for 0 s; it is given up after 300 s\n" in capsys.readouterr().err


INSTRUMENTED = {
    "ends the process": ("__attribute__((constructor)) static void f(void) { _exit(3); }", "exit status 3"),
    "says why": ('__attribute__((constructor)) static void f(void) { write(2, "no!\\n", 4); _exit(3); }', "(no!)"),
    "crashes": ("__attribute__((constructor)) static void f(void) { abort(); }", "it was ended by SIGABRT"),
    "hangs": ("__attribute__((constructor)) static void f(void) { for (;;) pause(); }", "longer than"),
    "lacks a symbol": ("int elsewhere(void); int g(void) { return elsewhere(); }", "undefined symbol: elsewhere"),
}


@pytest.mark.parametrize("what", INSTRUMENTED)
def test_what_a_compiler_adds_does_not_take_the_process_with_it(
    folder, script, monkeypatch, capsys, fresh_warning, programs_dir, tmp_path, what
):
    added, told = INSTRUMENTED[what]
    if what == "hangs":
        monkeypatch.setattr(native_build, "ANSWER", 1.0)
    (tmp_path / "added.h").write_text(f"#include <unistd.h>\n#include <stdlib.h>\n{added}\n")
    script(f'exec gcc -include {tmp_path / "added.h"} "$@"')
    with pytest.raises(native_build.NoCompilerError, match="could not be loaded") as caught:
        answer(18)
    assert told in str(caught.value)
    assert not list(folder.iterdir())
    if what == "ends the process":
        kept = ((native_powers, "_library"), (native_powers, "function"), (native_workers, "runner"))
        for module, cached in (*kept, (native_dense, "functions")):
            monkeypatch.setattr(module, cached, getattr(module, cached).__wrapped__)
        np.testing.assert_array_equal(*trained(tpc.compile(tpc.load(programs_dir / "mlp.py", classes=3))))
        warning = capsys.readouterr().err
        assert warning.count("\n") == 1
        assert "could not be loaded (exit status 3): the native backend runs NumPy code instead" in warning


FLAGS = ("-fsanitize=address", "-fsanitize=thread", "-fsanitize=undefined", "--coverage", "-pg")


@pytest.mark.parametrize("flag", FLAGS)
def test_instrumented_libraries_load_or_are_refused(folder, monkeypatch, flag, tmp_path):
    made = tmp_path / "x.c"
    made.write_text("int f(void) { return 1; }")
    if subprocess.run(["gcc", flag, "-shared", "-fPIC", made, "-o", tmp_path / "x.so"], capture_output=True).returncode:
        pytest.skip(f"gcc {flag} does not link here")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom backends import native_build\n"
    code += f"try:\n    print(native_build.load({SOURCE % 19!r}).answer())\n"
    code += "except native_build.NoCompilerError as e:\n    print(e)"
    environment = {**os.environ, "CC": f"gcc {flag}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "19\n" or "could not be loaded" in done.stdout


def trained(limit, **options):
    """Predictions after three steps on the native backend and on NumPy."""
    models = [limit.build(5, 4, backend=b, **options) for b in ("native", "numpy")]
    x = np.random.default_rng(0).standard_normal((6, 5))
    for _ in range(3):
        for model in models:
            model.step(x, np.arange(6) % 3, lr=0.1)
    return [model.predict(x) for model in models]


def refusing(monkeypatch, refuse):
    """dlopen, with the error of a disk from which nothing may run where `refuse(path)`."""
    load = ctypes.CDLL

    def checked(path):
        if refuse(path):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(native_build.ctypes, "CDLL", checked)


def test_where_nothing_may_be_loaded_numpy_runs(folder, monkeypatch, capsys, fresh_warning, programs_dir):
    refusing(monkeypatch, lambda path: True)
    np.testing.assert_array_equal(*trained(tpc.compile(tpc.load(programs_dir / "mlp.py", classes=3))))
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "failed to map segment" in warning


def test_where_the_cache_may_not_be_loaded_from_a_temporary_folder_is(folder, monkeypatch):
    refusing(monkeypatch, lambda path: path.startswith(str(folder)))
    assert answer(13) == answer(13) == 13


def test_a_compiler_may_complain_in_any_encoding(folder, monkeypatch, tmp_path):
    script = tmp_path / "latin"
    script.write_bytes(b"#!/bin/sh\nprintf 'error: \\351\\n' >&2\nprintf '\\351\\n'\nexit 1\n")
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    with pytest.raises(native_build.NoCompilerError, match="could not compile"):
        answer(14)


@pytest.mark.parametrize("name", ["tpc_half(", "tpc_run(", "tpc_products("])
def test_without_one_of_the_libraries_numpy_runs(folder, monkeypatch, capsys, fresh_warning, programs_dir, name):
    """A compiler that refuses one text alone: found out when the limit is compiled, not in the first step."""
    load = native_build.load

    def refuse(source):
        if name in source:
            raise native_build.NoCompilerError("no halves")
        return load(source)

    monkeypatch.setattr(native_build, "load", refuse)
    kept = ((native_powers, "_library"), (native_powers, "function"), (native_workers, "runner"))
    for module, cached in (*kept, (native_dense, "functions")):
        monkeypatch.setattr(module, cached, getattr(module, cached).__wrapped__)
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=3))
    np.testing.assert_allclose(*trained(limit, mode="folded"), atol=1e-6)
    assert "no halves" in capsys.readouterr().err


def test_a_relative_cache_is_not_used(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert answer(15) == 15
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home at all
    assert native_build.cache().is_absolute()
    assert not list(tmp_path.iterdir())


def test_every_folder_of_the_cache_is_private(folder):
    before = os.umask(0)
    try:
        answer(16)
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in (folder, folder.parent)] == [0o700, 0o700]
    folder.parent.chmod(0o777)
    assert native_build.cache() != folder


# --- what loading leaves alone ---------------------------------------------------------------------------------------

SUBNORMAL = """
import sys
sys.path.insert(0, {root!r})
import numpy as np, tpc
small = np.float32(1e-40), np.float64(1e-310)
model = tpc.compile(tpc.load({program!r}, classes=3)).build(5, 4, backend="native")
x = np.random.default_rng(0).standard_normal((6, 5))
model.step(x, np.arange(6) % 3, lr=0.1)
assert "native" in vars(model._module("cross_entropy")), "NumPy ran"
for tiny in small:
    assert tiny * tiny.dtype.type(0.5) > 0
    assert (np.full(100, tiny) * tiny.dtype.type(0.5)).all()
assert sys.float_info.min / 2 > 0
"""


def test_subnormal_numbers_survive(programs_dir):
    root = programs_dir.parent
    code = SUBNORMAL.format(root=str(root), program=str(programs_dir / "mlp.py"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
