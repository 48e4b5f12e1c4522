"""Tables on disk: made once, private, and worth nothing when they are not what was written."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tpc.gaussian import kept


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tpc" / "tables"


@pytest.fixture
def made():
    """How often the arrays were computed, and a function that asks for them."""
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(5.0), "b": np.eye(2)}

    def ask(what="numbers"):
        found = kept.recall(what, compute, "V[silu, silu]")
        assert np.array_equal(found["a"], np.arange(5.0))
        assert np.array_equal(found["b"], np.eye(2))
        return len(calls)

    return ask


def test_computed_once(folder, made):
    assert [made(), made(), made("others"), made("others")] == [1, 1, 2, 2]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [p.stat().st_mode & 0o777 for p in folder.iterdir()] == [0o600, 0o600]


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "a folder"])
def test_damage_is_mended(folder, made, harm):
    made()
    (place,) = folder.iterdir()
    whole = place.read_bytes()
    if harm == "a folder":
        place.unlink()
        place.mkdir()
    else:
        place.write_bytes({"cut": whole[:-7], "changed": whole[:200] + b"x" + whole[201:], "empty": b""}[harm])
    assert made() == 2
    assert made() == (3 if harm == "a folder" else 2)


def test_no_place_to_keep_them(tmp_path, monkeypatch, made):
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        before = made()
        assert made() == before + 1


def test_a_folder_of_another_user_is_not_read(folder, made, monkeypatch):
    made()
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert made() == 2


def test_a_folder_that_others_may_write_to_is_not_read(folder, made):
    made()
    folder.chmod(0o777)
    assert made() == 2


def test_a_full_disk(folder, made, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert [made(), made()] == [1, 2]
    assert list(folder.iterdir()) == []


def test_waiting_is_told_on_stderr(folder, made, monkeypatch, capsys):
    monkeypatch.setattr(kept._told, "patience", kept._told.spent + 0.05)
    kept.recall("slow", lambda: time.sleep(0.3) or {"a": np.zeros(1)}, "V[silu′, silu]")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("computing kernels without a closed form, now V[silu′, silu]") == 1
    assert told.err.endswith("kept for later runs\n")
    made()
    assert capsys.readouterr().err == ""


KERNELS = """
import sys, time
import numpy as np
from tpc.gaussian import kernel
from tpc.program.expression import parse_nonlinearity
phi = parse_nonlinearity("silu")
start = time.process_time()
p = np.array([0.5, 3.0])
for psi in (phi, phi.diff()):
    for chi in (phi, phi.diff()):
        print(*kernel(psi, chi).numeric(p, p, 0.5 * p))
print(time.process_time() - start)
"""


def test_silu_takes_seconds_and_then_less(folder):
    """All kernels of silu and its derivative: processor time, in a process of its own, first and second."""
    env = {**os.environ, "XDG_CACHE_HOME": str(folder.parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    run = [sys.executable, "-c", KERNELS]
    first, second = (
        subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.split("\n") for _ in range(2)
    )
    assert first[:4] == second[:4]
    assert float(first[4]) < 3  # 12 seconds before
    assert float(second[4]) < max(0.6 * float(first[4]), 1)
