"""What training takes of the memory of a device."""

from __future__ import annotations

from collections.abc import Callable

from backends.blocks import KEEP_SHARE
from backends.device import Device
from backends.device_arrays import POWER_BYTES, DeviceArrays
from backends.device_loops import KEEP_BYTES, ROW_LANE_BYTES
from backends.device_runtime import BLOCK_ELEMENTS
from backends.folded_atoms import PROBES
from tpc.limits.power import packed_size
from tpc.lower.footprint import BLOCK_ARRAYS, Footprint, Need, lower_powers, row_bytes, widest
from tpc.lower.instructions import Loop
from tpc.lower.lengths import Lengths
from tpc.lower.native_loop import native_loop
from tpc.program.tensor import Contract


class DeviceFootprint(Footprint):
    """Chunks of atoms, whose products and weights fit in the cache; the device is looked for when it is needed."""

    probes = PROBES

    def __init__(self, device: Callable[[], Device], arrays: Callable[[], DeviceArrays]) -> None:
        self._device = device
        self._arrays = arrays

    @property
    def _chunk(self) -> int:
        return self._device().cache_bytes

    def stored_rows(self, count: int, row_bytes: int, segment: int | None = None) -> int:
        """Rows that memory is taken for: segments are allocated whole."""
        rows = segments = 0
        while rows < count:
            rows += segment or self._arrays().segment_rows(0, row_bytes, segments)
            segments += 1
        return rows

    def atoms(self, count: int, row_bytes: int, segment: int | None = None) -> int:
        """Of whole segments."""
        return self.stored_rows(count, row_bytes, segment) * row_bytes

    def copied(self, storage: str | None, matrices: int, rank: int) -> int:
        """Folded matrices are read as they are."""
        return 0

    def kept(self, loop: Loop, lengths: Lengths, batch: int) -> Need:
        """Products in two parts."""
        store = loop.atom.base
        share = KEEP_SHARE * lengths.atoms[store] * lengths.row_bytes[store]
        parts = 2 * lengths.itemsize * sum(lengths.numbers(n.axes, batch) for n in loop.kept)
        return Need(min(parts, int(max(KEEP_BYTES, share))))

    def block(self, loop: Loop, sums: int, lengths: Lengths, batch: int) -> int:
        """Products and weights of a chunk, and rows that are widened from 16 bits."""
        atoms, size = max(1, lengths.atoms[loop.atom.base]), self._chunk
        row = row_bytes(loop, lengths, batch)
        widened = row if lengths.row_bytes[loop.atom.base] < row else 0
        if native_loop(loop, "loop") is not None:
            rows = min(atoms, max(1024, size // (ROW_LANE_BYTES * max(1, batch))))
            wide = sum(isinstance(n, Contract) and bool(n.over) for n in loop.body) + len(loop.sums)
            kept = rows * 2 * lengths.itemsize * wide * batch
            return 2 * sums + kept + min(rows * widened, 2 * max(size, 1024 * row))
        rows = min(atoms, max(256, BLOCK_ELEMENTS // max(1, batch)))
        return 2 * sums + rows * (BLOCK_ARRAYS * 8 * widest(loop, lengths, batch) + widened)

    def powers(self, order: int, rows: int, latents: int, outer: int, rank: int) -> int:
        """Those of lower degrees, and as many of the powers as go together."""
        packed = packed_size(rank, order)
        return min(rows, max(1, POWER_BYTES // (4 * packed))) * packed + rows * lower_powers(rank, order)
