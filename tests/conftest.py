"""Shared test set-up: a quick reproducible hypothesis profile, --update-golden."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

settings.register_profile(
    "quick",
    derandomize=True,  # the same examples on every run
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quick")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts after an intended change")


@lru_cache(maxsize=1)
def cuda_device():
    """Whether CuPy finds a device to run on."""
    try:
        return bool(import_module("cupy").cuda.is_available())
    except ImportError:
        return False


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not cuda_device():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")


@pytest.fixture(scope="session")
def programs_dir():
    """The folder of the programs that come with tpc."""
    return ROOT / "programs"
