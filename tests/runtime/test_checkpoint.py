"""Checkpoints are whole or absent, and damaged ones are passed over."""

import errno
import os
import shutil
from dataclasses import asdict

import pytest

from tpc.errors import DataError, UserError
from tpc.runtime import checkpoint as module
from tpc.runtime.checkpoint import CheckpointStore, write_atomic
from tpc.runtime.position import Position, is_whole_state


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
    store = CheckpointStore(tmp_path, whole=is_whole_state)
    state = {"position": asdict(Position(step=3, batch=3)), "metrics_bytes": 7}
    store.write(0, 3, state, saver("good"))
    bad = [{}, {"position": 3, "metrics_bytes": 7}, state | {"metrics_bytes": "x"}, state | {"position": {"step": 4}}]
    for step, damaged in enumerate(bad, 4):
        CheckpointStore(tmp_path, keep=9).write(0, step, damaged, saver("bad"))
    assert store.require().state["position"]["step"] == 3


def test_a_full_disk_is_told_and_the_older_checkpoint_stays(tmp_path):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    store.write(0, 1, {}, saver("good"))

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"cannot write the checkpoint of step 2 .*No space left.*--resume"):
        store.write(0, 2, {}, full)
    assert store.require().model_path.read_text() == "good"


def test_no_usable_checkpoint_says_what_was_found(tmp_path):
    store = CheckpointStore(tmp_path / "none")
    with pytest.raises(DataError, match="found none"):
        store.require()
    path = store.write(0, 1, {}, saver("x"))
    (path / "model.npz").unlink()
    with pytest.raises(DataError, match="only damaged ones: epoch-000-step-000000001"):
        store.require()


def test_write_atomic_replaces_whole_files(tmp_path):
    target = tmp_path / "file.txt"
    write_atomic(target, "old")
    write_atomic(target, "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]
