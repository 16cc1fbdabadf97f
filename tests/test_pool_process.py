"""StreamPool.process: the bits of as many calls of step, whoever takes part and in which order."""

import copy
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from support import DTYPES, KINDS, LAYOUTS, Net, in_layout, net_of, python_memory, random, same

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2)


def pool_of(layer, streams, **options):
    pool = fastrnn.StreamPool(layer, streams, **options)
    return pool, np.array([pool.join() for _ in range(streams)])


def states(pool, ids):
    return [pool.get_state(i) for i in ids]


def all_same(some, others):
    return all(same(a, b) for a, b in zip(some, others, strict=True))


# the bits of steps


@settings(max_examples=40)
@given(data=st.data())
def test_any_blocks_of_any_streams(isa, data):
    """a pool that takes blocks beside one that takes the same samples step by step"""
    net = net_of(data.draw(st.sampled_from(KINDS)), data.draw(st.integers(1, 9)),
                 data.draw(st.integers(2, 40)), layers=data.draw(st.integers(1, 3)),
                 dtype=data.draw(st.sampled_from(DTYPES)))  # fmt: skip
    streams = data.draw(st.one_of(st.integers(1, 5), st.integers(90, 200)))
    pool, ids = pool_of(net.build(), streams, num_threads=data.draw(st.integers(1, 3)))
    by_steps = copy.copy(pool)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    for _ in range(data.draw(st.integers(1, 4))):
        some = rng.permutation(ids)[: data.draw(st.integers(0, streams))]
        steps = data.draw(st.integers(0, 12 if streams > 5 else 150))
        x = rng.standard_normal((steps, len(some), net.inputs)).astype(net.dtype)
        y = pool.process(some, x)
        assert y.shape == (steps, len(some), net.width) and y.dtype == net.dtype
        for rows, wanted in zip(x, y, strict=True):
            assert by_steps.step(some, rows).tobytes() == wanted.tobytes()
    assert all_same(states(pool, ids), states(by_steps, ids))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("hidden", [33, 256])
@each_kind
def test_many_streams(kind, hidden, threads):
    """several chunks of rows, enough work for threads, two blocks of steps and a step"""
    layer = net_of(kind, 20, hidden, layers=2).build()
    pool, ids = pool_of(layer, 205, num_threads=threads)
    x, some = random(10, 205, 20), np.random.default_rng(3).permutation(205)
    wanted = layer(x)[0][:, some]
    for begin, end in ((0, 2), (2, 9)):
        y = pool.process(ids[some], x[begin:end, some])
        assert y.tobytes() == wanted[begin:end].tobytes()
    assert pool.step(ids[some], x[9, some]).tobytes() == wanted[9].tobytes()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
@each_kind
def test_long_blocks(kind, threads, streams, layers):
    """more steps than a layer makes at once"""
    layer = net_of(kind, 5, 40, layers=layers).build()
    pool, ids = pool_of(layer, streams, num_threads=threads)
    x = random(300, streams, 5)
    assert pool.process(ids, x).tobytes() == layer(x)[0].tobytes()


@pytest.mark.parametrize("threads", [2, 3])
def test_units_split_among_threads(threads):
    layer = fastrnn.LSTM(300, 700, num_layers=2, proj_size=301, seed=1)
    pool, ids = pool_of(layer, 4, num_threads=threads)
    x = random(9, 300)
    assert pool.process(ids[1:2], x).tobytes() == layer.stream().process(x).tobytes()


def test_neighbours_that_are_not_finite():
    layer = fastrnn.LSTM(3, 20, num_layers=2, seed=1)
    pool, ids = pool_of(layer, 3)
    x = random(70, 3)
    y = pool.process(ids, np.stack([x * np.nan, x, x * np.inf], 1))
    assert y[:, 1].tobytes() == layer.stream().process(x).tobytes()


# forms of the arguments


def test_nothing_to_do():
    """no steps, or nobody: results of that shape, and nothing has changed"""
    pool, ids = pool_of(NET.build(), 3)
    pool.step(ids, random(3, 5))
    before = states(pool, ids)
    assert pool.process(ids, random(0, 3, 5)).shape == (0, 3, 7)
    assert pool.process([], random(4, 0, 5)).shape == (4, 0, 7)
    assert pool.process([], random(0, 0, 5)).shape == (0, 0, 7)
    assert pool.process(ids[:1], random(0, 5)).shape == (0, 7)
    assert all_same(states(pool, ids), before)


def test_one_stream_with_and_without_its_axis():
    pool, ids = pool_of(NET.build(), 2)
    x = random(4, 5)
    flat, rows = pool.process(ids[:1], x), pool.process(ids[1:], x[:, None])
    assert flat.shape == (4, 7) and rows.shape == (4, 1, 7)
    assert flat.tobytes() == rows.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_x(layout):
    pool, ids = pool_of(NET.build(), 3)
    by_steps = copy.copy(pool)
    x = random(4, 3, 5)
    y = pool.process(ids, in_layout(x, layout))
    assert y.tobytes() == np.stack([by_steps.step(ids, rows) for rows in x]).tobytes()


def test_out():
    pool, ids = pool_of(NET.build(), 4)
    x, out = random(6, 2, 5), random(6, 2, 7)
    assert pool.process(ids[:2], x, out=out) is out
    assert pool.process(ids[2:], x).tobytes() == out.tobytes()
    before, buffer = states(pool, ids), random(24)
    with pytest.raises(ValueError, match="^out: overlaps x in memory"):
        pool.process(ids[:2], buffer[:10].reshape(1, 2, 5), buffer[9:23].reshape(1, 2, 7))
    for wrong in (random(6, 2, 8), random(6, 14), random(5, 2, 7), random(12, 7)):
        with pytest.raises(ValueError, match=r"^out: expected shape \[6, 2, 7\], got \["):
            pool.process(ids[:2], x, wrong)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="^out: expected a writable array, got a read-only one"):
        pool.process(ids[:2], x, out)
    assert all_same(states(pool, ids), before)


# what it takes


def test_blocks_allocate_nothing_in_python():
    pool, ids = pool_of(fastrnn.LSTM(64, 128, num_layers=2), 100)
    x, out = random(9, 100, 64), np.empty((9, 100, 128), np.float32)
    left, most = python_memory(lambda: pool.process(ids, x, out), 5)
    assert most < 4096 and left < 1024


def test_a_long_block_of_one_small_stream_releases_the_gil():
    """of which a step is too little work for that; who comes meanwhile gets an error"""
    pool, ids = pool_of(fastrnn.GRU(2, 16, seed=1), 1)
    x, errors, end = random(50_000, 2), [], time.monotonic() + 60

    def meddle():
        while not errors and time.monotonic() < end:
            try:
                pool.get_state(ids[0])
            except RuntimeError as error:
                errors.append(str(error))

    thread = threading.Thread(target=meddle)
    thread.start()
    while not errors and time.monotonic() < end:
        try:
            pool.process(ids, x)
        except RuntimeError as error:  # or the other one was first
            errors.append(str(error))
    thread.join()
    assert errors and "pool: in use by another thread" in errors[0]
