"""What every backend states about itself: its stages, the operations of its loops, and what it takes of memory."""

import pytest

from tpc.errors import InternalError, UsageError
from tpc.lower.lengths import Lengths, length_of
from tpc.lower.lowered import STAGES
from tpc.lower.operations import ARITY
from tpc.program.axes import FEATURE, SAMPLE, Axis
from tpc.runtime.models.backend import BACKENDS, load_backend


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_an_object(name):
    backend = load_backend(name)
    assert name == backend.NAME
    assert backend.stages == STAGES
    assert set(backend.operations) <= set(ARITY)
    assert set(backend.STORAGE) >= set(backend.DTYPES)
    assert load_backend(name) is backend


def test_numpy_has_every_operation():
    assert set(load_backend("numpy").operations) == set(ARITY)


def test_an_unknown_backend():
    with pytest.raises(UsageError, match="expected a backend among numpy, native, cupy, got 'fpga'"):
        load_backend("fpga")


def test_bytes_of_atoms(cuda_cpu):
    assert load_backend("numpy").footprint.atom([3, 400, 1], 4, None, False) == 4 * 404
    assert load_backend("native").footprint.atom([3, 400, 1], 4, "bfloat16", True) == 2 * 403 + 4 + 16
    assert cuda_cpu.footprint.atoms(1000, 1620, 512) == 1024 * 1620
    assert load_backend("native").footprint.copied(None, 5, 7) == cuda_cpu.footprint.copied("bfloat16", 5, 7) == 0


def test_an_axis_that_nothing_tells_the_length_of_is_our_mistake():
    lengths = Lengths({FEATURE.name: 7}, rank=3, itemsize=4, atoms={}, row_bytes={})
    assert lengths.numbers((SAMPLE, FEATURE, Axis("class", 5)), 2) == 2 * 7 * 5
    for found in (lambda: lengths.length(Axis("time"), 2), lambda: length_of(Axis("time"), {"sample": 2})):
        with pytest.raises(InternalError, match="nothing tells the length of time"):
            found()
