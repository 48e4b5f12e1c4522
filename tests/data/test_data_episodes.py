"""Episodes: what they hold, that a seed and a number determine them, and that every draw is equally likely."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from tpc.data import ClassTable, Normalisation, episodes
from tpc.errors import UsageError


def table(classes=30, images=20):
    """Images of three pixels that tell their class and their number."""
    pixels = np.empty((classes, images, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(classes)[:, None]
    pixels[..., 1] = np.arange(images)
    pixels[..., 2] = 255
    return ClassTable(pixels, tuple(f"A{row % 4}/character{row:02d}/rot000" for row in range(classes)))


def tell(inputs):
    """The classes and the numbers of images."""
    pixels = np.rint(inputs * 255).astype(int)
    return pixels[..., 0], pixels[..., 1]


@pytest.mark.parametrize(("ways", "shots", "queries"), [(5, 1, 15), (5, 5, 3), (1, 1, 1), (30, 2, 18), (20, 19, 1)])
def test_an_episode_holds_what_its_labels_say(ways, shots, queries):
    batch = episodes(table(), ways=ways, shots=shots, queries=queries, tasks=7, seed=3, index=11)
    assert batch.support.shape == (7, ways * shots, 3)
    assert batch.query.shape == (7, ways * queries, 3)
    assert (batch.tasks, batch.ways) == (7, ways)
    assert batch.support.dtype == np.float32
    assert batch.classes.dtype == batch.support_labels.dtype == batch.query_labels.dtype == np.int64
    seen = []
    for inputs, labels, count in (
        (batch.support, batch.support_labels, shots),
        (batch.query, batch.query_labels, queries),
    ):
        assert labels.tolist() == [[way for way in range(ways) for _ in range(count)]] * 7
        classes, images = tell(inputs)
        assert np.array_equal(classes, np.take_along_axis(batch.classes, labels, axis=1))
        seen.append(images.reshape(7, ways, count))
    images = np.sort(np.concatenate(seen, axis=2), axis=2)
    assert (np.diff(images, axis=2) > 0).all()  # support and query images are all different
    assert (np.diff(np.sort(batch.classes, axis=1), axis=1) > 0).all()


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("support", "support_labels", "query", "query_labels", "classes")
    )


def test_a_seed_and_a_number_determine_an_episode():
    def batch(seed, index, tasks=8):
        return episodes(table(), queries=2, tasks=tasks, seed=seed, index=index)

    assert same(batch(1, 1000), batch(1, 1000))
    assert not same(batch(1, 1000), batch(1, 1001))
    assert not same(batch(1, 1000), batch(2, 1000))
    whole = batch(1, 0, tasks=24)
    assert np.array_equal(whole.query, np.concatenate([batch(1, index).query for index in range(3)]))
    assert np.array_equal(whole.classes, np.concatenate([batch(1, index, 1).classes for index in range(24)]))
    assert len({tuple(row) for row in whole.classes.tolist()}) == 24


def test_the_stream_is_fixed():
    """A run resumed with another version of NumPy or tpc must see the same episodes."""
    batch = episodes(table(), queries=1, tasks=2, seed=0, index=5)
    assert batch.classes.tolist() == [[13, 20, 29, 22, 2], [10, 5, 8, 27, 12]]
    assert tell(batch.support)[1].tolist() == [[3, 11, 18, 11, 11], [15, 2, 7, 2, 19]]


def test_every_ordered_choice_of_classes_is_equally_likely():
    batch = episodes(table(classes=5, images=2), ways=3, queries=1, tasks=30_000, seed=0)
    codes = (batch.classes @ [25, 5, 1]).tolist()
    counts = [codes.count(25 * a + 5 * b + c) for a, b, c in permutations(range(5), 3)]
    assert sum(counts) == 30_000
    assert chisquare(counts).pvalue > 1e-3


def test_every_ordered_choice_of_images_is_equally_likely():
    batch = episodes(table(classes=3, images=4), ways=2, shots=1, queries=1, tasks=30_000, seed=1)
    support, query = tell(batch.support)[1], tell(batch.query)[1]
    for way in range(2):
        codes = (4 * support[:, way] + query[:, way]).tolist()
        counts = [codes.count(4 * a + b) for a, b in permutations(range(4), 2)]
        assert sum(counts) == 30_000
        assert chisquare(counts).pvalue > 1e-3


def test_normalisation():
    plain = episodes(table(), tasks=4, seed=0, dtype=np.float64)
    assert plain.query.dtype == np.float64
    assert plain.query[..., 2].min() == plain.query.max() == 1
    normalisation = table().statistics()
    pixels = table().images / 255
    assert normalisation.mean == pytest.approx((pixels.mean(),), abs=1e-12)
    assert normalisation.std == pytest.approx((pixels.std(),), abs=1e-12)
    centred = episodes(table(), tasks=4, seed=0, dtype=np.float64, normalisation=normalisation)
    assert np.abs(centred.query - (plain.query - pixels.mean()) / pixels.std()).max() < 1e-12
    channels = Normalisation(255.0, (0.0, 0.5, 1.0), (1.0, 1.0, 2.0))
    got = episodes(table(), tasks=4, seed=0, dtype=np.float64, normalisation=channels)
    assert np.abs(got.support - (plain.support - [0, 0.5, 1]) / [1, 1, 2]).max() < 1e-12


def test_names_of_a_task_lead_to_alphabets():
    classes = table()
    batch = episodes(classes, tasks=3, seed=0)
    assert [classes.alphabets[row] for row in batch.classes[2]] == [f"A{row % 4}" for row in batch.classes[2]]


REFUSED = {
    "31-way episodes need 31 classes, the table has 30": {"ways": 31},
    "10 shots and 11 queries need 21 images per class, the table has 20": {"shots": 10, "queries": 11},
    "Expected ways of at least 1, got 0": {"ways": 0},
    "Expected shots of at least 1, got 0": {"shots": 0},
    "Expected queries of at least 1, got -1": {"queries": -1},
    "Expected tasks of at least 1, got 0": {"tasks": 0},
    "Expected seed of at least 0, got -1": {"seed": -1},
    "Expected index of at least 0, got -5": {"index": -5},
    "Expected inputs of type float32 or float64, got float16": {"dtype": np.float16},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(UsageError, match=message):
        episodes(table(), **({"tasks": 2, "seed": 0} | REFUSED[message]))


def test_an_empty_table():
    empty = table().take([])
    assert len(empty.rotated()) == 0
    with pytest.raises(UsageError, match="5-way episodes need 5 classes, the table has 0"):
        episodes(empty, tasks=1, seed=0)
    with pytest.raises(UsageError, match="Expected classes"):
        empty.statistics()


def pictures(side=6):
    rng = np.random.default_rng(4)
    return ClassTable(
        rng.integers(1, 255, (7, 5, side * side)).astype(np.uint8), tuple(f"a/character{i}/rot000" for i in range(7))
    )


def test_shifts_move_the_same_images_by_whole_pixels():
    options = {"ways": 3, "shots": 2, "queries": 3, "tasks": 40, "seed": 1, "index": 2}
    plain, shifted = (episodes(pictures(), shift=s, **options) for s in (0, 2))
    np.testing.assert_array_equal(plain.classes, shifted.classes)
    seen = set()
    for one, other in ((plain.support, shifted.support), (plain.query, shifted.query)):
        for before, after in zip(one.reshape(-1, 6, 6), other.reshape(-1, 6, 6), strict=True):
            wide = np.pad(before, 2)
            moves = [(i, j) for i in range(5) for j in range(5) if (wide[i : i + 6, j : j + 6] == after).all()]
            assert len(moves) == 1
            seen.add(moves[0])
    assert len(seen) == 25


def test_shifted_episodes_do_not_depend_on_the_batches_they_come_in():
    options = {"ways": 3, "queries": 2, "seed": 1, "shift": 1}
    whole = episodes(pictures(), tasks=6, index=1, **options)
    parts = [episodes(pictures(), tasks=2, index=3 + k, **options) for k in range(3)]
    np.testing.assert_array_equal(whole.query, np.concatenate([p.query for p in parts]))
    fewer = episodes(pictures(), tasks=6, index=1, shots=2, **{**options, "queries": 1})
    np.testing.assert_array_equal(fewer.support.reshape(6, 3, 2, -1)[:, :, 0], whole.support)


def test_mirror_images_are_classes_of_their_own():
    plain = pictures()
    both = plain.mirrored()
    assert (len(both), both.names[:7], both.names[7]) == (14, plain.names, "a/character0/rot000/mirrored")
    assert (len(set(both.names)), both.alphabets) == (14, plain.alphabets * 2)
    np.testing.assert_array_equal(both.images[:7], plain.images)
    left, right = plain.images.reshape(7, 5, 6, 6), both.images[7:].reshape(7, 5, 6, 6)
    for column in range(6):
        np.testing.assert_array_equal(right[..., column], left[..., 5 - column])
    assert len(table().take([]).mirrored()) == 0


@pytest.mark.parametrize(("shift", "match"), [(-1, "shift of at least 0"), (1, "square")])
def test_shifts_that_cannot_be(shift, match):
    with pytest.raises(UsageError, match=match):
        episodes(table(), ways=3, shots=1, queries=1, tasks=1, seed=0, shift=shift)


def test_a_moved_support_holds_every_move_of_every_image():
    plain = episodes(pictures(), ways=3, shots=2, queries=1, tasks=4, seed=1)
    more = plain.with_moved_support(1)
    assert more.support.shape == (4, 3 * 2 * 9, 36)
    np.testing.assert_array_equal(more.query, plain.query)
    for task in range(4):
        for row, image in enumerate(plain.support[task].reshape(-1, 6, 6)):
            wide = np.pad(image, 1)
            wanted = {wide[i : i + 6, j : j + 6].tobytes() for i in range(3) for j in range(3)}
            assert {x.tobytes() for x in more.support[task, 9 * row : 9 * row + 9]} == wanted
            assert set(more.support_labels[task, 9 * row : 9 * row + 9]) == {plain.support_labels[task, row]}
    assert plain.with_moved_support(0) is plain
    with pytest.raises(UsageError, match="square"):
        episodes(table(), ways=3, shots=1, queries=1, tasks=1, seed=0).with_moved_support(1)
    with pytest.raises(UsageError, match="at least 0"):
        plain.with_moved_support(-1)
