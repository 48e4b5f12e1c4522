"""What training takes of the memory of this machine: NumPy's blocks, and native loops."""

from __future__ import annotations

from backends.blocks import KEEP_SHARE, block_rows
from backends.moments import PROBES
from backends.powers import CHUNK
from backends.threads import threads
from tpc.limits.power import packed_size
from tpc.lower.footprint import BLOCK_ARRAYS, Footprint, Need, row_bytes, widest
from tpc.lower.instructions import Loop
from tpc.lower.lengths import Lengths, places_of

HUGE_PAGE = 1 << 21  # what the kernel may hand out for the first byte of a column


class HostFootprint(Footprint):
    """Blocks of atoms, one per thread."""

    probes = PROBES

    def atoms(self, count: int, row_bytes: int, segment: int | None = None) -> int:
        """Memory of a segment is taken when its rows are written."""
        taken = count * row_bytes
        return taken + min(taken, 2 * HUGE_PAGE)

    def copied(self, storage: str | None, matrices: int, rank: int) -> int:
        """Folded matrices are read as they are."""
        return 0

    def kept(self, loop: Loop, lengths: Lengths, batch: int) -> Need:
        """At most a share of the atoms' memory."""
        size = lengths.itemsize * sum(lengths.numbers(n.axes, batch) for n in loop.kept)
        return Need(size if self.may_keep(loop, size, lengths) else 0)

    def may_keep(self, loop: Loop, size: int, lengths: Lengths) -> bool:
        """Whether a loop keeps products of so many bytes."""
        store = loop.atom.base
        return size <= 1.001 * KEEP_SHARE * lengths.atoms[store] * lengths.row_bytes[store]

    def block(self, loop: Loop, sums: int, lengths: Lengths, batch: int) -> int:
        """Per thread its sums, elementwise work, and rows that are converted from 16 bits."""
        atoms = max(1, lengths.atoms[loop.atom.base])
        rows = min(block_rows(batch * places_of(loop.body)), atoms)
        row = row_bytes(loop, lengths, batch)
        converted = 2 * row if lengths.row_bytes[loop.atom.base] < row else 0
        each = sums + rows * (BLOCK_ARRAYS * 8 * widest(loop, lengths, batch) + converted)
        return min(threads().count, -(-atoms // rows)) * each

    def powers(self, order: int, rows: int, latents: int, outer: int, rank: int) -> int:
        """Those of lower degrees, and a chunk of columns per thread."""
        chunk = max(CHUNK, packed_size(rank, order - 1))
        lower = sum(packed_size(latents, k) * packed_size(rank, k) for k in range(1, order))
        parts = rows if latents == 1 else 3 * rows
        return rows * lower + threads().count * (parts + outer) * chunk + packed_size(rank, order)
