"""What is kept between products stays within its budget and goes with its linear map."""

import gc
import sys
import threading
import weakref

import psutil
import pytest
import tensorflow as tf

from hvp.linearization.cache import SHARE, SavedTensorCache


class Map:
    """Stands for a linear map, which is a key here and nothing else."""


def tensors(*sizes, dtype=tf.float64):
    return [tf.zeros([size], dtype) for size in sizes]


def test_a_frontier_that_fits_is_kept_as_it_is():
    frontiers, linear_map = SavedTensorCache(1000, beside=False), Map()
    frontier = tensors(10, 5)
    frontiers.offer(linear_map, 3, [], frontier)
    assert frontiers.get(linear_map, 3) is frontier
    assert frontiers.bytes == 120


def test_what_was_not_offered_is_not_there():
    frontiers, linear_map, other = SavedTensorCache(1000, beside=False), Map(), Map()
    frontiers.offer(linear_map, 0, [], tensors(1))
    assert frontiers.get(linear_map, 1) is None
    assert frontiers.get(other, 0) is None
    assert frontiers.count([other]) == 0


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
    frontiers, linear_map = SavedTensorCache(size, beside=False), Map()
    frontiers.offer(linear_map, 0, [], [tensor])
    assert frontiers.bytes == size
    assert frontiers.get(linear_map, 0) is not None
    tight = SavedTensorCache(max(size - 1, 0), beside=False)
    tight.offer(linear_map, 0, [], [tensor])
    assert (tight.get(linear_map, 0) is None) == (size > 0)


def test_the_budget_holds_for_all_maps_together_and_what_fits_later_is_kept():
    frontiers, maps = SavedTensorCache(200, beside=False), [Map(), Map()]
    for index in range(2):
        for linear_map in maps:
            frontiers.offer(linear_map, index, [], tensors(10))
    assert frontiers.bytes == 160
    assert frontiers.count(maps) == 2
    assert [frontiers.count([linear_map]) for linear_map in maps] == [1, 1]
    frontiers.offer(maps[1], 1, [], tensors(6))
    assert frontiers.get(maps[1], 1) is None
    frontiers.offer(maps[1], 1, [], tensors(5))
    assert frontiers.bytes == 200
    assert frontiers.count(maps) == 3


def test_no_budget_keeps_nothing_but_what_takes_nothing():
    frontiers, linear_map = SavedTensorCache(0, beside=True), Map()
    batch = tensors(10)
    frontiers.offer(linear_map, 0, batch, [*batch, *tensors(1)])
    assert frontiers.get(linear_map, 0) is None
    frontiers.offer(linear_map, 1, batch, batch)
    frontiers.offer(linear_map, 2, batch, [])
    assert frontiers.count([linear_map]) == 2
    assert frontiers.bytes == 0


def test_batches_held_anyway_are_not_counted():
    batch, others = tensors(10, 20), tensors(3)
    for beside, size in ((True, 24), (False, 104)):
        frontiers, linear_map = SavedTensorCache(1000, beside=beside), Map()
        frontiers.offer(linear_map, 0, batch, [batch[0], *others])
        assert frontiers.bytes == size


def test_an_equal_batch_is_not_the_batch():
    frontiers, linear_map = SavedTensorCache(1000, beside=True), Map()
    frontiers.offer(linear_map, 0, tensors(10), tensors(10))
    assert frontiers.bytes == 80


def test_without_a_budget_it_is_a_share_of_the_memory_that_is_free():
    free = psutil.virtual_memory().available
    budget = SavedTensorCache(None, beside=True).budget
    assert isinstance(budget, int)
    assert budget == pytest.approx(SHARE * free, rel=0.2)
    assert 0 < SHARE < 1


def test_maps_that_die_release_what_they_kept():
    frontiers, first, second = SavedTensorCache(200, beside=False), Map(), Map()
    frontier = tensors(20)
    tensor = weakref.ref(frontier[0])
    frontiers.offer(first, 0, [], frontier)
    frontiers.offer(second, 0, [], tensors(20))
    assert frontiers.count([first, second]) == 1
    del first, frontier
    gc.collect()
    assert tensor() is None
    assert frontiers.bytes == 0
    frontiers.offer(second, 0, [], tensors(20))
    assert frontiers.bytes == 160


@pytest.fixture
def hasty():
    """Threads that take turns every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(*works):
    """Run functions in threads of their own; what one raises is raised."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_offers_from_several_threads_stay_within_the_budget(hasty):
    for _ in range(20):
        frontiers, maps = SavedTensorCache(80 * 10, beside=False), [Map() for _ in range(4)]
        frontier = tensors(10)

        def offer(linear_map, frontiers=frontiers, frontier=frontier):
            for index in range(20):
                frontiers.offer(linear_map, index, [], frontier)

        at_once(*(lambda m=linear_map: offer(m) for linear_map in maps))
        assert frontiers.bytes == 800
        assert frontiers.count(maps) == 10


def test_what_is_kept_can_be_read_while_it_grows(hasty):
    frontiers, maps, done = (
        SavedTensorCache(1 << 30, beside=False),
        [Map(), Map()],
        threading.Event(),
    )
    begun = threading.Barrier(3)

    def offer():
        begun.wait()
        for index in range(600):
            for linear_map in maps:
                frontiers.offer(linear_map, index, [], tensors(1))
        done.set()

    def read():
        begun.wait()
        seen = 0
        while not done.is_set():
            size = frontiers.bytes
            assert seen <= size == 8 * (size // 8)
            seen = size

    at_once(offer, read, read)
    assert frontiers.bytes == 9600
