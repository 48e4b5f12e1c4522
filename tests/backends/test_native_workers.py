"""Native worker threads: every call runs once, failures are told, and they outlive sleep, company and forks."""

import ctypes
import os
import threading
import time

import numpy as np
import pytest

from backends import native_build, native_workers

SOURCE = """
#include <stdint.h>
typedef struct { int64_t *place; int64_t number, fails; } call;
__attribute__((visibility("default"))) int add(const void *given)
{
    const call *c = given;
    *c->place += c->number;
    return (int)c->fails;
}
"""


class Call(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("number", ctypes.c_int64), ("fails", ctypes.c_int64)]


@pytest.fixture(scope="module")
def add():
    try:
        library = native_build.load(SOURCE)
    except native_build.NoCompilerError as e:
        pytest.skip(str(e))
    address = native_workers.address(library["add"])

    def run(places, number, failing=()):
        start = places.ctypes.data
        calls = [Call(start + 8 * k, number + k, k in failing) for k in range(len(places))]
        return native_workers.run(address, calls)

    return run


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_call_runs_once(add, count):
    places = np.zeros(count, np.int64)
    for _ in range(500):
        assert not add(places, 10)
    np.testing.assert_array_equal(places, 500 * (10 + np.arange(count)))


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_is_told_once(add, failing):
    places = np.zeros(3, np.int64)
    assert add(places, 1, {failing})
    assert not add(places, 1)
    np.testing.assert_array_equal(places, [2, 4, 6])


def test_workers_that_sleep_are_woken(add):
    places = np.zeros(3, np.int64)
    for _ in range(20):
        time.sleep(0.005)
        add(places, 1)
    np.testing.assert_array_equal(places, [20, 40, 60])


def test_several_threads_at_a_time(add):
    rows = np.zeros((4, 3), np.int64)

    def many(places):
        for _ in range(2000):
            add(places, 1)

    threads = [threading.Thread(target=many, args=(row,)) for row in rows]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(rows, [[2000, 4000, 6000]] * 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_its_own(add):
    places = np.zeros(3, np.int64)
    add(places, 1)
    child = os.fork()
    if child == 0:
        for _ in range(100):
            add(places, 1)
        os._exit(0 if list(places) == [101, 202, 303] else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    add(places, 1)
    np.testing.assert_array_equal(places, [2, 4, 6])
