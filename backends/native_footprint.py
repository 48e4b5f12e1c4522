"""What training with native loops takes of the memory of this machine."""

from __future__ import annotations

from backends import native_products
from backends.host_footprint import HostFootprint
from backends.native_loops import FUSED_BATCH, LANES
from tpc.lower.footprint import Need
from tpc.lower.instructions import Loop
from tpc.lower.lengths import Lengths
from tpc.lower.native_loop import native_loop

ROUNDED = "bfloat16"  # the storage with which products are rounded, too


class NativeFootprint(HostFootprint):
    """Loops that C has a rule for keep whole lanes, in memory that stays theirs."""

    def copied(self, storage: str | None, matrices: int, rank: int) -> int:
        """Matrices rounded to bfloat16, packed for a few samples."""
        return native_products.packed_bytes(matrices, rank) if storage == ROUNDED else 0

    def kept(self, loop: Loop, lengths: Lengths, batch: int) -> Need:
        """Anything for few samples."""
        if native_loop(loop, "loop") is None:
            return super().kept(loop, lengths, batch)
        lanes = -(-batch // LANES) * LANES
        size = lengths.itemsize * sum(lengths.numbers(n.axes, lanes) for n in loop.kept)
        return Need(0, size if batch <= FUSED_BATCH or self.may_keep(loop, size, lengths) else 0)
