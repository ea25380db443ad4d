"""What is kept between products stays within its budget and goes with its linear map."""

import gc
import sys
import threading
import weakref

import psutil
import pytest
import tensorflow as tf
from support.threads import at_once

from hvp.linearization.cache import CONSTANTS, SHARE, SavedTensorCache


class Map:
    """Stands for the known part of a linear map."""

    branch_bytes = 0


class Place:
    """Stands for a point, of a family of points."""

    def __init__(self, family="one"):
        self.family = family


class Keeper:
    has_let_go = False

    def let_go(self):
        self.has_let_go = True


POINT = Place()


def tensors(*sizes, dtype=tf.float64):
    return [tf.zeros([size], dtype) for size in sizes]


def test_a_saved_tensor_that_fits_is_kept_as_it_is():
    cache, linear_map = SavedTensorCache(1000), Map()
    saved = tensors(10, 5)
    cache.add(POINT, linear_map, 3, [], saved)
    assert cache.get(POINT, linear_map, 3) is saved
    assert cache.bytes == 120


def test_what_was_not_offered_is_not_there():
    cache, linear_map, other = SavedTensorCache(1000), Map(), Map()
    cache.add(POINT, linear_map, 0, [], tensors(1))
    assert cache.get(POINT, linear_map, 1) is None
    assert cache.get(POINT, other, 0) is None
    assert cache.count(POINT, [other]) == 0


@pytest.mark.parametrize(
    ("tensor", "size"),
    [
        (tf.zeros([3, 4], tf.float32), 48),
        (tf.zeros([3], tf.int64), 24),
        (tf.zeros([5], tf.bool), 5),
        (tf.zeros([], tf.float64), 8),
        (tf.zeros([0, 7]), 0),
    ],
    ids=str,
)
def test_bytes_are_those_of_the_tensors(tensor, size):
    cache, linear_map = SavedTensorCache(size), Map()
    cache.add(POINT, linear_map, 0, [], [tensor])
    assert cache.bytes == size
    assert cache.get(POINT, linear_map, 0) is not None
    tight = SavedTensorCache(max(size - 1, 0))
    tight.add(POINT, linear_map, 0, [], [tensor])
    assert (tight.get(POINT, linear_map, 0) is None) == (size > 0)


def test_the_budget_holds_for_all_maps_together_and_what_fits_later_is_kept():
    cache, maps = SavedTensorCache(200), [Map(), Map()]
    for index in range(2):
        for linear_map in maps:
            cache.add(POINT, linear_map, index, [], tensors(10))
    assert cache.bytes == 160
    assert cache.count(POINT, maps) == 2
    assert [cache.count(POINT, [linear_map]) for linear_map in maps] == [1, 1]
    cache.add(POINT, maps[1], 1, [], tensors(6))
    assert cache.get(POINT, maps[1], 1) is None
    cache.add(POINT, maps[1], 1, [], tensors(5))
    assert cache.bytes == 200
    assert cache.count(POINT, maps) == 3


def test_no_budget_keeps_nothing_but_what_takes_nothing():
    cache, linear_map = SavedTensorCache(0), Map()
    batch = tensors(10)
    cache.add(POINT, linear_map, 0, batch, [*batch, *tensors(1)])
    assert cache.get(POINT, linear_map, 0) is None
    cache.add(POINT, linear_map, 1, batch, batch)
    cache.add(POINT, linear_map, 2, batch, [])
    assert cache.count(POINT, [linear_map]) == 2
    assert cache.bytes == 0


def test_batches_held_anyway_are_not_counted():
    batch, others = tensors(10, 20), tensors(3)
    for held, size in ((batch, 24), ([], 104)):
        cache, linear_map = SavedTensorCache(1000), Map()
        cache.add(POINT, linear_map, 0, held, [batch[0], *others])
        assert cache.bytes == size


def test_an_equal_batch_is_not_the_batch():
    cache, linear_map = SavedTensorCache(1000), Map()
    cache.add(POINT, linear_map, 0, tensors(10), tensors(10))
    assert cache.bytes == 80


def test_without_a_budget_it_is_a_share_of_the_memory_that_is_free():
    free = psutil.virtual_memory().available
    budget = SavedTensorCache(None).budget
    assert isinstance(budget, int)
    assert budget == pytest.approx(SHARE * free, rel=0.2)
    assert 0 < SHARE < 1


def test_maps_that_die_release_what_they_kept():
    cache, first, second = SavedTensorCache(200), Map(), Map()
    saved = tensors(20)
    tensor = weakref.ref(saved[0])
    cache.add(POINT, first, 0, [], saved)
    cache.add(POINT, second, 0, [], tensors(20))
    assert cache.count(POINT, [first, second]) == 1
    del first, saved
    gc.collect()
    assert tensor() is None
    assert cache.bytes == 0
    cache.add(POINT, second, 0, [], tensors(20))
    assert cache.bytes == 160


def test_points_have_tensors_of_their_own_and_release_them_when_they_die():
    cache, linear_map, first, second = SavedTensorCache(1000), Map(), Place(), Place()
    cache.add(first, linear_map, 0, [], tensors(10))
    assert cache.get(second, linear_map, 0) is None
    cache.add(second, linear_map, 0, [], tensors(5))
    assert cache.bytes == 120
    del first
    gc.collect()
    assert cache.bytes == 40
    assert cache.count(second, [linear_map]) == 1


def test_the_point_used_least_recently_gives_its_tensors_up():
    cache, linear_map, points = SavedTensorCache(240), Map(), [Place() for _ in range(3)]
    keepers = [Keeper() for _ in points]
    for point, keeper in zip(points, keepers, strict=True):
        cache.register(point, keeper)
        cache.add(point, linear_map, 0, [], tensors(10))
    cache.add(points[0], linear_map, 1, [], tensors(10))
    assert [cache.count(point, [linear_map]) for point in points] == [2, 0, 1]
    assert [keeper.has_let_go for keeper in keepers] == [False, True, False]


def test_what_is_too_large_by_itself_drops_no_other_point():
    cache, linear_map, first, second = SavedTensorCache(200), Map(), Place(), Place()
    cache.add(first, linear_map, 0, [], tensors(10))
    cache.add(second, linear_map, 0, [], tensors(30))
    assert cache.count(first, [linear_map]) == 1
    assert cache.bytes == 80


def test_points_of_another_family_keep_their_tensors():
    cache, linear_map, first, other = SavedTensorCache(100), Map(), Place(), Place("two")
    cache.add(first, linear_map, 0, [], tensors(10))
    cache.add(other, linear_map, 0, [], tensors(10))
    assert cache.count(first, [linear_map]) == 1
    assert cache.get(other, linear_map, 0) is None


def test_a_point_that_is_dropped_keeps_nothing():
    cache, linear_map, keeper = SavedTensorCache(100), Map(), Keeper()
    cache.register(POINT, keeper)
    cache.add(POINT, linear_map, CONSTANTS, [], tensors(10))
    assert cache.count(POINT, [linear_map]) == 0
    cache.drop(POINT)
    assert cache.bytes == 0
    assert keeper.has_let_go


@pytest.fixture
def hasty():
    """Threads that take turns every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_offers_from_several_threads_stay_within_the_budget(hasty):
    for _ in range(20):
        cache, maps = (
            SavedTensorCache(80 * 10),
            [Map() for _ in range(4)],
        )
        saved = tensors(10)

        def add(linear_map, cache=cache, saved=saved):
            for index in range(20):
                cache.add(POINT, linear_map, index, [], saved)

        at_once(*(lambda m=linear_map: add(m) for linear_map in maps))
        assert cache.bytes == 800
        assert cache.count(POINT, maps) == 10


def test_what_is_kept_can_be_read_while_it_grows(hasty):
    cache, maps, done = (
        SavedTensorCache(1 << 30),
        [Map(), Map()],
        threading.Event(),
    )
    begun = threading.Barrier(3)

    def add():
        begun.wait()
        for index in range(100):
            for linear_map in maps:
                cache.add(POINT, linear_map, index, [], tensors(1))
        done.set()

    def read():
        begun.wait()
        seen = 0
        while not done.is_set():
            size = cache.bytes
            assert seen <= size == 8 * (size // 8)
            seen = size

    at_once(add, read, read)
    assert cache.bytes == 1600
