"""Checkpoints are whole or absent, and damaged ones are passed over."""

import errno
import json
import os
import shutil
from dataclasses import asdict

import pytest

from tpc.errors import DataError
from tpc.runtime.files.whole import WriteError, write_atomic
from tpc.runtime.training import checkpoint as module
from tpc.runtime.training.checkpoint import CheckpointStore
from tpc.runtime.training.position import Position, defect


def saver(text):
    return lambda path: path.write_text(text) and None


def test_keeps_the_newest_two(tmp_path):
    store = CheckpointStore(tmp_path / "c")
    for step in range(1, 5):
        store.write(0, step, {"at": step}, saver(f"model {step}"))
    assert sorted(os.listdir(tmp_path / "c")) == ["epoch-000-step-000000003", "epoch-000-step-000000004"]
    newest = store.require()
    assert newest.state["at"] == 4
    assert newest.model_path.read_text() == "model 4"


def test_the_epoch_orders_checkpoints_of_one_step(tmp_path):
    store = CheckpointStore(tmp_path)
    store.write(1, 7, {"evaluated": True}, saver("m"))
    store.write(0, 7, {"evaluated": False}, saver("m"))
    assert store.require().state["evaluated"]


def test_a_crash_while_saving_leaves_the_older_one(tmp_path):
    store = CheckpointStore(tmp_path)
    store.write(0, 1, {}, saver("good"))

    def crash(path):
        path.write_text("hal")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(0, 2, {}, crash)
    assert store.require().model_path.read_text() == "good"
    store.write(0, 2, {}, saver("again"))
    assert store.require().model_path.read_text() == "again"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_crash_while_dropping_the_oldest_leaves_only_whole_ones(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1)
    store.write(0, 1, {}, saver("one"))

    def crash(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write(0, 2, {}, saver("two"))
    monkeypatch.setattr(module.shutil, "rmtree", shutil.rmtree)
    assert [c.name for c in store._names()] == ["epoch-000-step-000000002"]
    assert store.require().model_path.read_text() == "two"


@pytest.mark.parametrize("damage", ["truncate", "flip", "no state", "bad state"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    store = CheckpointStore(tmp_path)
    store.write(0, 1, {}, saver("the older model"))
    path = store.write(0, 2, {}, saver("the newer model"))
    if damage == "truncate":
        (path / "model.npz").write_text("the new")
    elif damage == "flip":
        (path / "model.npz").write_text("the newer modem")
    elif damage == "no state":
        (path / "state.json").unlink()
    else:
        (path / "state.json").write_text("[1, 2")
    assert store.require().model_path.read_text() == "the older model"
    store.write(0, 2, {}, saver("the newer model"))
    assert store.require().model_path.read_text() == "the newer model"


def test_a_state_without_its_entries_is_a_damaged_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, defect=defect)
    state = {"position": asdict(Position(step=3, batch=3, samples=9)), "metrics_bytes": 7}
    store.write(0, 3, state, saver("good"))
    bad = [{}, {"position": 3, "metrics_bytes": 7}, state | {"metrics_bytes": "x"}, state | {"position": {"step": 4}}]
    for step, damaged in enumerate(bad, 4):
        CheckpointStore(tmp_path, keep=9).write(0, step, damaged, saver("bad"))
    assert store.require().state["position"]["step"] == 3


def test_a_full_disk_is_told_and_the_older_checkpoint_stays(tmp_path):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    store.write(0, 1, {}, saver("good"))

    def full(path):
        path.write_text("a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told = r"cannot write the checkpoint of step 2 to .*run/checkpoints: No space left on device\."
    with pytest.raises(WriteError, match=told) as caught:
        store.write(0, 2, {}, full)
    assert caught.value.remedy == "Make room"
    assert store.require().model_path.read_text() == "good"
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["epoch-000-step-000000001"]


def test_no_usable_checkpoint_says_what_was_found(tmp_path):
    store = CheckpointStore(tmp_path / "none")
    with pytest.raises(DataError, match="found none"):
        store.require()
    path = store.write(0, 1, {}, saver("x"))
    (path / "model.npz").unlink()
    with pytest.raises(DataError, match=r"(?s)only damaged ones:.*step-000000001 is damaged: model\.npz: No such file"):
        store.require()


def test_write_atomic_replaces_whole_files(tmp_path):
    target = tmp_path / "file.txt"
    write_atomic(target, "old")
    write_atomic(target, "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("at", ["open", "write", "replace"])
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, monkeypatch, at):
    target = tmp_path / "file.txt"
    write_atomic(target, "old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write(2) says it: without a name

    if at == "open":
        (tmp_path / "file").write_text("")
        target = tmp_path / "file" / "x.txt"
    else:
        monkeypatch.setattr(os, {"write": "fsync", "replace": "replace"}[at], full)
    with pytest.raises(WriteError, match=rf"cannot write {target}: "):
        write_atomic(target, "new")
    monkeypatch.undo()
    assert (tmp_path / "file.txt").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} <= {"file.txt", "file"}


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    assert pipe.is_fifo()


GOOD = {"position": asdict(Position(1, 2, 9, 32, 3.5, 20.0, 1.5)), "metrics_bytes": 1000}
BAD = {
    "loss_sum": (float("nan"), "NaN"),
    "seconds": (-1e30, "no time that training takes"),
    "epoch": (-1, "its epoch is -1"),
    "batch": (40, "do not make 40 batches"),
    "step": (1, "fewer than the 2 batches"),
    "samples": (True, "its samples is True"),
    "accuracy_sum": (33.0, "not that of 32 samples"),
    "metrics_bytes": (10**30, "its metrics_bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_state_that_no_training_has_is_damaged(tmp_path, name, capsys):
    assert not defect(GOOD)
    value, told = BAD[name]
    store = CheckpointStore(tmp_path, defect=defect)
    store.write(1, 9, GOOD, saver("good"))
    newer = store.write(1, 10, GOOD, saver("newer"))
    state = json.loads((newer / "state.json").read_text())
    del state["state_crc32"]
    (state if name == "metrics_bytes" else state["position"])[name] = value
    (newer / "state.json").write_text(json.dumps(state))
    assert store.require().model_path.read_text() == "good"
    error = capsys.readouterr().err
    assert told in error
    assert f"the checkpoint {newer} is damaged: state.json" in error
    assert "epoch-001-step-000000009 is taken instead" in error


def test_a_state_changed_into_another_possible_one_is_damaged(tmp_path, capsys):
    store = CheckpointStore(tmp_path, defect=defect)
    store.write(1, 9, GOOD, saver("good"))
    newer = store.write(1, 10, GOOD, saver("newer"))
    text = (newer / "state.json").read_text()
    (newer / "state.json").write_text(text.replace('"step": 9', '"step": 8'))
    assert store.require().model_path.read_text() == "good"
    assert "state.json was changed: its checksum is another" in capsys.readouterr().err
