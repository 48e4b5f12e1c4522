"""Few-shot episodes: N-way K-shot tasks drawn from a class table, each a function of a seed and its number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tpc.data.classes import UNIT, ClassTable
from tpc.data.dataset import Inputs, Labels, Normalisation
from tpc.data.shifts import moved
from tpc.errors import UsageError

Raw = npt.NDArray[np.uint64]

BLOCK = 4  # numbers that Philox yields per step of its counter


@dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """T tasks of N classes, K support and Q query images per class, all of d features.

    `support` (T, N·K, d) and `query` (T, N·Q, d) are float32 or float64; row n·K + k of a task is the k-th support
    image of its class n, and likewise for queries. `support_labels` (T, N·K) and `query_labels` (T, N·Q) are int64
    in 0 … N−1, the order in which the task drew its classes. `classes` (T, N) says which class of the table label
    n stands for: `table.names[batch.classes[t, n]]`.
    """

    support: Inputs
    support_labels: Labels
    query: Inputs
    query_labels: Labels
    classes: Labels

    @property
    def tasks(self) -> int:
        """The number of tasks T."""
        return int(self.classes.shape[0])

    @property
    def ways(self) -> int:
        """The number of classes N of a task."""
        return int(self.classes.shape[1])

    def with_moved_support(self, shift: int) -> EpisodeBatch:
        """The same tasks with every support image there (2S + 1)² times, moved by −S … S = `shift` pixels both ways."""
        if shift < 0:
            raise UsageError(f"Expected shift of at least 0, got {shift}.")
        if shift == 0:
            return self
        moves = np.array([(i, j) for i in range(-shift, shift + 1) for j in range(-shift, shift + 1)])
        tasks, images, dim = self.support.shape
        every = self.support.reshape(-1, dim).repeat(len(moves), axis=0)
        rows, columns = np.tile(moves, (tasks * images, 1)).T
        support = moved(every, rows, columns).reshape(tasks, -1, dim)
        return replace(self, support=support, support_labels=self.support_labels.repeat(len(moves), axis=1))


def episodes(
    table: ClassTable,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    tasks: int,
    seed: int,
    index: int = 0,
    shift: int = 0,
    normalisation: Normalisation = UNIT,
    dtype: npt.DTypeLike = np.float32,
) -> EpisodeBatch:
    """The `index`-th batch of `tasks` episodes: those numbered index·tasks … (index+1)·tasks − 1 of the seed.

    An episode draws N = `ways` classes without replacement and K + Q = `shots` + `queries` different images of
    each. It depends on the table, N, K + Q, the seed and its number alone, so the batch of any step can be made
    again without those before it, and the same episodes can be had in batches of any size. The numbers are
    those of Philox with the seed as key and the episode as counter, a stream that NumPy keeps fixed.

    With `shift` S every image is moved by random whole numbers of pixels from −S to S in both directions; the classes
    and images of an episode stay those without. `normalisation` is applied to the pixels; the default leaves them in
    [0, 1], ink being 1, as the paper does.
    Raises UsageError where the table has too few classes or images.
    Source: Vinyals et al., "Matching Networks for One Shot Learning" (NeurIPS 2016).
    """
    _require(table, ways, shots, queries, tasks, seed, index, shift)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise UsageError(f"Expected inputs of type float32 or float64, got {np.dtype(dtype).name}.")
    per_class = table.images_per_class
    raw = _numbers(seed, index * tasks, tasks, ways * (1 + per_class))
    classes = _distinct(raw[:, :ways], len(table))
    order = raw[:, ways : ways * (1 + per_class)].reshape(tasks, ways, per_class).argsort(axis=2, kind="stable")
    chosen = slice(0, shots), slice(shots, shots + queries)
    rows = classes[:, :, None] * per_class + order
    moves = _moves(seed, index * tasks, shift, rows.shape) if shift else None

    def inputs(part: slice) -> Inputs:
        pixels = table.images.reshape(-1, table.input_dim).take(rows[:, :, part].reshape(-1), axis=0)
        if moves is not None:
            pixels = moved(pixels, *moves[:, :, :, part].reshape(2, -1))
        filled: Inputs = np.empty(pixels.shape, dtype)
        return normalisation.apply(pixels, filled).reshape(tasks, -1, table.input_dim)

    def labels(count: int) -> Labels:
        one: Labels = np.repeat(np.arange(ways), count)
        return np.repeat(one[None], tasks, axis=0)

    return EpisodeBatch(
        support=inputs(chosen[0]),
        support_labels=labels(shots),
        query=inputs(chosen[1]),
        query_labels=labels(queries),
        classes=classes,
    )


def _numbers(seed: int, first: int, count: int, wanted: int, stream_of: int = 0) -> Raw:
    """At least `wanted` random 64-bit numbers for each of `count` episodes from number `first` on."""
    blocks = -(-wanted // BLOCK)
    stream: Any = np.random.Philox(key=seed + (stream_of << 64), counter=first * blocks)
    raw: Raw = stream.random_raw(count * blocks * BLOCK)
    return raw.reshape(count, blocks * BLOCK)


def _moves(seed: int, first: int, shift: int, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Numbers from −shift to shift, (2, T, N, images per class), for the images of the episodes from `first` on."""
    tasks, ways, images = shape
    raw = _numbers(seed, first, tasks, 2 * ways * images, stream_of=1)[:, : 2 * ways * images]
    drawn = (raw % np.uint64(2 * shift + 1)).astype(np.int64) - shift
    return drawn.reshape(tasks, 2, ways, images).swapaxes(0, 1)


def _distinct(raw: Raw, size: int) -> Labels:
    """Ordered samples without replacement from 0 … size − 1, one per row of `raw` (T, N), all equally likely."""
    tasks, ways = raw.shape
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    drawn = np.empty((tasks, ways), dtype=np.int64)
    taken = np.empty((tasks, 0), dtype=np.int64)  # the values drawn so far, ascending in each row
    for i in range(ways):
        among_free = (uniform[:, i] * (size - i)).astype(np.int64)
        # value v of the free ones is v plus the number of taken ones below it; the k-th has taken[k] − k free below
        drawn[:, i] = among_free + (taken - np.arange(i) <= among_free[:, None]).sum(axis=1)
        taken = np.sort(drawn[:, : i + 1], axis=1)
    return drawn


def _require(
    table: ClassTable, ways: int, shots: int, queries: int, tasks: int, seed: int, index: int, shift: int
) -> None:
    for name, value, least in (
        ("ways", ways, 1),
        ("shots", shots, 1),
        ("queries", queries, 1),
        ("tasks", tasks, 1),
        ("seed", seed, 0),
        ("index", index, 0),
        ("shift", shift, 0),
    ):
        if value < least:
            raise UsageError(f"Expected {name} of at least {least}, got {value}.")
    if ways > len(table):
        raise UsageError(f"{ways}-way episodes need {ways} classes, the table has {len(table):,}.")
    if shots + queries > table.images_per_class:
        raise UsageError(
            f"{shots} shots and {queries} queries need {shots + queries} images per class, "
            f"the table has {table.images_per_class}."
        )
