"""What a run survives: a full disk, output that goes away, signals, terminals that are closed."""

import contextlib
import fcntl
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from tests.support.runs import ROOT, assert_same_run, invoke, records, steps
from tpc.runtime.training.rundir import RunDir

MLP = ROOT / "programs" / "mlp.py"
QUICK = ("--set", "hidden=1", "--rank", 12, "--limit-train-size", 200, "--batch-size", 16)
TRAIN = ("train", MLP, *QUICK, "--no-report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of two epochs."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    result = invoke(*TRAIN, "--epochs", 2, "--out", path)
    assert result.exit_code == 0, result.output
    return path


# --- a full disk -----------------------------------------------------------------------------------------------------


def limited(size, *arguments):
    """`tpc` in a process whose files may not be larger than `size` bytes."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); import cli; cli.main(prog_name='tpc')"
    command = [sys.executable, "-c", limit, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_disk_full_at_the_first_checkpoint_leaves_nothing_and_says_so(tmp_path):
    run = tmp_path / "r"
    done = limited(5000, *TRAIN, "--out", run)
    assert done.returncode == 1
    told = f"error: cannot write the checkpoint of step 0 to {run}/checkpoints: File too large. There is no checkpoint"
    assert told in done.stderr
    assert "nothing of this run is kept. Mend that and run the same command again." in done.stderr
    assert "--resume" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert invoke(*TRAIN, "--epochs", 1, "--out", run).exit_code == 0


def test_a_disk_full_later_keeps_the_last_checkpoint_and_says_how_to_go_on(finished, tmp_path):
    run = tmp_path / "r"
    grown = (finished / "checkpoints" / "epoch-001-step-000000013" / "model.npz").stat().st_size
    done = limited(grown - 1, *TRAIN, "--epochs", 2, "--out", run)
    assert done.returncode == 1
    told = f"cannot write the checkpoint of step 13 to {run}/checkpoints: File too large. The checkpoint of step 0 is"
    assert told in done.stderr
    assert f"go on with: tpc train --resume {run}" in done.stderr
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["epoch-000-step-000000000"]
    assert invoke("train", "--resume", run, "--no-report").exit_code == 0
    assert_same_run(finished, run)


def test_overwriting_on_a_full_disk_loses_no_run(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "r"))
    before = {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert limited(5000, *TRAIN, "--out", run, "--overwrite").returncode == 1
    assert {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert invoke(*TRAIN, "--epochs", 1, "--out", run, "--overwrite").exit_code == 0
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.toml", "metrics.jsonl", "program.py"]
    assert records(run) == records(finished)[:14]


def test_a_run_killed_while_it_replaces_another_brings_that_back(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "r"))
    (run / ".replaced").mkdir()
    for path in list(run.iterdir()):
        if path.name != ".replaced":
            path.rename(run / ".replaced" / path.name)
    (run / "config.toml").write_text("task = 'train'\n")
    result = invoke("train", "--resume", run, "--no-report")
    assert result.exit_code == 0, result.output
    assert "the old one is back" in result.stderr
    assert_same_run(finished, run)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", place]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("left", [0, 8, 100])
def test_every_error_of_a_full_disk_names_a_file(small_disk, left):
    filling = small_disk / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filling, filling.stat().st_size - 4096 * left)
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", *map(str, TRAIN), "--rank", "200", "--out", small_disk / "r"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot write " in done.stderr
    assert f"{small_disk}/r" in done.stderr
    assert "No space left on device" in done.stderr
    kept = (small_disk / "r").exists()
    assert kept == (left == 100)  # there is room for the first checkpoint
    assert ("Make room and go on with: tpc train" if kept else "Make room and run the same command") in done.stderr
    assert not list(small_disk.glob("r/checkpoints/.unfinished*"))


def test_a_regression_that_cannot_be_recorded_is_told(tmp_path):
    run = tmp_path / "r"
    done = limited(1, "regress", MLP, "--limit", "nngp", "--set", "hidden=1", "--limit-train-size", 100, "--out", run,
                   "--backend", "numpy")  # fmt: skip
    assert done.returncode == 1
    assert f"cannot write {run}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_says_that_the_training_is_kept(tmp_path, monkeypatch):
    from tpc.runtime.files import whole as files

    put = files.put

    def full(path, text):
        if "report" in path.name:
            raise OSError(28, "No space left on device")
        put(path, text)

    monkeypatch.setattr(files, "put", full)
    run = tmp_path / "r"
    result = invoke("train", MLP, *QUICK, "--epochs", 1, "--out", run)
    assert result.exit_code == 1
    assert f"cannot write {run}/report.html: No space left on device. The training is done and kept." in result.output
    assert f"Make room and write the report with: tpc train --resume {run}" in result.output
    monkeypatch.undo()
    assert invoke("train", "--resume", run).exit_code == 0
    assert (run / "report.html").exists()


# --- output that goes away -------------------------------------------------------------------------------------------


def shell(command):
    """Exit code of the first process of a pipe, and what went to standard error."""
    tpc = shlex.join([sys.executable, str(ROOT / "cli.py")])
    done = subprocess.run(["bash", "-c", f"tpc() {{ {tpc} \"$@\"; }}; {command}; exit ${{PIPESTATUS[0]}}"],
                          capture_output=True, text=True)  # fmt: skip
    return done.returncode, done.stderr


GONE = "warning: standard output is gone ("
AWAY = {"head": "| head -n 1 > /dev/null", "closed": ">&-", "full": "> /dev/full", "all closed": ">&- 2>&-",
        "no input either": "<&- >&-"}  # fmt: skip


@pytest.mark.parametrize("how", AWAY)
def test_training_goes_on_when_its_output_goes_away(finished, tmp_path, how):
    run = tmp_path / "r"
    code, errors = shell(f"tpc {shlex.join(map(str, TRAIN))} --epochs 2 --out {run} {AWAY[how]}")
    assert code == 0
    assert errors.count(GONE) == (0 if how == "all closed" else 1)
    assert errors.count("\n") == errors.count(GONE)
    assert_same_run(finished, run)


CHECK = f"check {MLP} --set hidden=1 --widths 16:64 --seeds 1 --steps 0 --rank 4"
REGRESS = f"regress {MLP} --set hidden=1 --limit nngp --limit-train-size 100 --backend numpy"


def test_what_nothing_keeps_is_an_error_when_its_output_goes_away(finished, tmp_path):
    for command in (f"eval {finished}", f"eval {finished} --json", REGRESS, f"{CHECK} --json", "kernel relu --json"):
        code, errors = shell(f"tpc {command} >&-")
        assert code == 1, command
        assert errors.splitlines()[-1].startswith("error: ")
        assert "standard output" in errors
        assert "internal" not in errors
    code, errors = shell(f"tpc {REGRESS} --out {tmp_path / 'k'} | head -n 1 > /dev/null")
    assert code == 0
    assert GONE in errors
    assert [r["kind"] for r in RunDir(tmp_path / "k").read_metrics()] == ["ridge"] * 5 + ["end"]


def test_commands_do_without_standard_error(finished, tmp_path):
    assert shell(f"tpc eval {finished} 2>&-") == (0, "")
    assert shell("tpc kernel nonsense 2>&-")[0] == 2
    code, _ = shell(f"tpc {CHECK} 2> /dev/full")
    assert code in (0, 1, 3)
    run = tmp_path / "r"
    assert shell(f"tpc {shlex.join(map(str, TRAIN))} --epochs 1 --json --out {run} 2> /dev/full")[0] == 0
    assert records(run) == records(finished)[:14]


def test_a_hangup_that_nohup_ignores_is_ignored(finished, tmp_path):
    run = tmp_path / "r"
    train = shlex.join(map(str, (sys.executable, ROOT / "cli.py", *TRAIN, "--epochs", 2, "--out", run)))
    command = f"trap '' HUP; exec {train}"
    process = subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and len(steps(run)) < 5:
        time.sleep(0.001)
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert_same_run(finished, run)


def test_a_terminal_that_goes_away_ends_with_a_checkpoint(finished, tmp_path):
    run = tmp_path / "r"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *map(str, TRAIN), "--epochs", "2", "--out", run],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    while process.poll() is None and len(steps(run)) < 5:
        time.sleep(0.001)
    os.close(ours)  # the kernel sends SIGHUP, and writing fails from now on
    assert process.wait() == 128 + signal.SIGHUP
    assert RunDir(run).checkpoints.require().state["position"]["step"] >= 5
    assert invoke("train", "--resume", run, "--no-report").exit_code == 0
    assert_same_run(finished, run)


def test_reproduce_hands_a_signal_on(tmp_path):
    from tpc.tasks import table1

    script = "import signal, sys, time\n"
    script += "signal.signal(signal.SIGTERM, lambda *_: sys.exit('the checkpoint is written'))\n"
    script += f"open({str(tmp_path / 'up')!r}, 'w').close()\ntime.sleep(60)"
    threading.Thread(target=_when_there, args=(tmp_path / "up",)).start()
    with pytest.raises(table1.StoppedError, match="stopped by SIGTERM: the checkpoint is written") as caught:
        table1._finished([sys.executable, "-c", script])
    assert caught.value.exit_code == 143


def _when_there(path):
    while not path.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
