"""One writer at a time: who is refused, what is said, and that nothing stale keeps anyone out."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.support.runs import ROOT
from tpc.errors import UserError
from tpc.runtime.files import lock as module
from tpc.runtime.files.lock import BusyError, Lock, require_free

HOLD = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tpc.runtime.files.lock import Lock
with Lock(Path(sys.argv[1]), "the run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock at tmp_path / ".lock"."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_at_once_and_told_by_whom(tmp_path, holder):
    started = time.monotonic()
    with pytest.raises(BusyError) as caught:
        Lock(tmp_path / ".lock", "the run").acquire()
    assert time.monotonic() - started < 0.2
    told = f"the run is being written by process {holder.pid} on {socket.gethostname()} since 20"
    assert told in str(caught.value)
    with pytest.raises(BusyError, match=f"process {holder.pid}"):
        require_free(tmp_path / ".lock", "the run")
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_keeps_nobody_out(tmp_path, holder, how):
    holder.send_signal(how)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    require_free(tmp_path / ".lock", "the run")
    with Lock(tmp_path / ".lock", "the run"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '{"pid": "x"}', '{"pid": 1e99, "host": "h", "since": ""}'])
def test_a_strange_note_is_no_obstacle(tmp_path, text):
    path = tmp_path / ".lock"
    path.write_text(text)
    with Lock(path, "the run") as held:
        with open(path, "w") as file:
            file.write(text)
        with pytest.raises(BusyError, match=r"is being written by (another process|process \d+)"):
            Lock(path, "the run").acquire()
        assert held


def test_threads_exclude_each_other_too(tmp_path):
    inside, most = [0], [0]

    def work():
        for _ in range(20):
            try:
                with Lock(tmp_path / ".lock", "the run"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.001)
                    inside[0] -= 1
            except BusyError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not (tmp_path / ".lock").exists()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def none(*arguments):
        raise OSError(module.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", none)
    with Lock(tmp_path / ".lock", "the run"):
        assert "this file system has no locks (No locks available); start no second" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/no/\.lock: No such file"):
        Lock(tmp_path / "no" / ".lock", "the run").acquire()
