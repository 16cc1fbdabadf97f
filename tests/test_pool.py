"""StreamPool: the bits of a stream never depend on its neighbours; ids, errors, states, travel."""

import contextlib
import copy
import pickle
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from support import DTYPES, KINDS, Net, net_of, packed, python_memory, random, same, unpacked

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2)


def single(state):
    """a pool's state of one stream as a stream of one row has it"""
    return packed(tuple(s[:, None] for s in unpacked(state)))


# the same bits as streams of their own


@settings(max_examples=25)
@given(data=st.data())
def test_any_order_of_joining_stepping_and_leaving(isa, data):
    """a pool beside a dict of streams, both driven by the same random commands"""
    kind, dtype = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(DTYPES))
    net = net_of(kind, data.draw(st.integers(1, 9)), data.draw(st.integers(2, 40)),
                 layers=data.draw(st.integers(1, 3)), dtype=dtype)  # fmt: skip
    layer = net.build()
    capacity = data.draw(st.integers(1, 20))
    pool = fastrnn.StreamPool(layer, capacity, num_threads=data.draw(st.integers(1, 2)))
    streams, seen = {}, set()
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    for _ in range(data.draw(st.integers(1, 30))):
        command = rng.choice(["join", "join", "step", "step", "step", "leave", "reset", "state"])
        if command == "join" and len(pool) < capacity:
            new = pool.join()
            assert new not in seen, "an id came back"
            seen.add(new)
            streams[new] = layer.stream()
        elif command == "step":
            ids = [i for i in streams if rng.random() < 0.7]
            rng.shuffle(ids)
            x = rng.standard_normal((len(ids), net.inputs)).astype(dtype)
            y = pool.step(ids, x)
            assert y.shape == (len(ids), net.width) and y.dtype == dtype
            for row, i in enumerate(ids):
                assert y[row].tobytes() == streams[i].step(x[row]).tobytes()
        elif streams:
            one = int(rng.choice(list(streams)))
            if command == "leave":
                pool.leave(one)
                del streams[one]
            elif command == "reset":
                pool.reset(one)
                streams[one].reset()
            else:
                assert same(single(pool.get_state(one)), streams[one].state)
        assert len(pool) == len(streams) and sorted(pool.ids.tolist()) == sorted(streams)
    for i, stream in streams.items():
        assert i in pool and same(single(pool.get_state(i)), stream.state)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("hidden", [33, 256])
@each_kind
def test_many_streams(kind, hidden, threads):
    """more than a chunk of rows, and enough work for threads"""
    net = net_of(kind, 20, hidden, layers=2)
    layer = net.build()
    pool = fastrnn.StreamPool(layer, 205, num_threads=threads)
    ids = np.array([pool.join() for _ in range(205)])
    x = random(3, 205, 20)
    wanted = layer(x)[0]
    some = np.random.default_rng(3).permutation(205)
    for t in range(3):
        y = pool.step(ids[some], x[t, some])
        assert y.tobytes() == wanted[t, some].tobytes()


@pytest.mark.parametrize("threads", [2, 3])
def test_units_split_among_threads(threads):
    """one stream alone, wide enough that its units are shared out"""
    layer = fastrnn.LSTM(300, 700, num_layers=2, proj_size=301, seed=1)
    pool = fastrnn.StreamPool(layer, 4, num_threads=threads)
    pool.join()
    one, stream = pool.join(), layer.stream()
    for x in random(5, 300):
        assert pool.step([one], x[None])[0].tobytes() == stream.step(x).tobytes()


def test_neighbours_that_are_not_finite():
    layer = fastrnn.LSTM(3, 20, num_layers=2, seed=1)
    pool, stream = fastrnn.StreamPool(layer, 3), layer.stream()
    ids = [pool.join() for _ in range(3)]
    x = random(4, 3)
    for row in x:
        rows = np.stack([row * np.nan, row, row * np.inf])
        assert pool.step(ids, rows)[1].tobytes() == stream.step(row).tobytes()
    pool.leave(ids[0])
    fresh, stream = pool.join(), layer.stream()
    assert pool.step([fresh], x[:1])[0].tobytes() == stream.step(x[0]).tobytes()


# ids


def test_ids_are_never_reused():
    pool = fastrnn.StreamPool(NET.build(), 3)
    ids = [pool.join() for _ in range(3)]
    for _ in range(100):
        pool.leave(ids[1])
        assert ids[1] not in pool
        ids[1] = pool.join()
        assert len(set(ids)) == 3 == len(pool)
    assert max(ids) >= 100
    assert pool.capacity == 3 and pool.num_threads == 1 and "3 of 3" in repr(pool)


def test_a_new_stream_starts_from_zero():
    pool = fastrnn.StreamPool(NET.build(), 1)
    one = pool.join()
    pool.step([one], random(1, 5))
    assert pool.get_state(one)[0].any()
    pool.leave(one)
    assert not any(s.any() for s in pool.get_state(pool.join()))


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda i: np.array(i, np.int32),
                                  lambda i: np.array(i, np.uint8),
                                  lambda i: np.repeat(i, 2)[::2]])  # fmt: skip
def test_forms_of_ids(form):
    pool = fastrnn.StreamPool(NET.build(), 3)
    ids = [pool.join() for _ in range(3)]
    assert pool.step(form([ids[2], ids[0]]), random(2, 5)).shape == (2, 7)


def test_no_ids():
    pool = fastrnn.StreamPool(NET.build(), 3)
    for none in ([], np.zeros(0, np.int64)):
        assert pool.step(none, random(0, 5)).shape == (0, 7)


def test_one_row_without_its_axis():
    pool = fastrnn.StreamPool(NET.build(), 3)
    one = pool.join()
    assert pool.step([one], random(5)).shape == (7,)


# states


@each_kind
def test_states_move(kind):
    net = net_of(kind, 5, 7, layers=2)
    layer = net.build()
    pool, other, stream = fastrnn.StreamPool(layer, 2), fastrnn.StreamPool(layer, 9), layer.stream()
    x = random(6, 5)
    a = pool.join()
    for row in x[:3]:
        pool.step([a], row[None])
        stream.step(row)
    state = pool.get_state(a)
    assert unpacked(state)[0].shape == (2, net.width)
    b, c = other.join(state), other.join()
    other.set_state(c, state)
    for s in unpacked(state):
        s[...] = 99  # copies
    for row in x[3:]:
        y = other.step([c, b], np.stack([row, row]))
        wanted = stream.step(row)
        assert y[0].tobytes() == y[1].tobytes() == wanted.tobytes()


@each_kind
def test_states_of_a_stream_of_one_row(kind):
    """[L, 1, P] as well as [L, P]: what a stream and a call of one row give"""
    layer = net_of(kind, 5, 7, layers=2).build()
    stream, x = layer.stream(), random(4, 5)
    stream.process(x)
    pool = fastrnn.StreamPool(layer, 3)
    a, b = pool.join(stream.state), pool.join()
    pool.set_state(b, layer(x)[1])
    wanted = pool.get_state(a)
    assert same(single(wanted), stream.state) and same(wanted, pool.get_state(b))
    pool.reset(b)
    pool.set_state(b, layer(x[:, None])[1])
    assert same(wanted, pool.get_state(b))
    with pytest.raises(ValueError, match=r"^state.*: expected shape \[2, "):
        pool.set_state(b, layer(np.stack([x, x], 1))[1])
    assert same(wanted, pool.get_state(b))


class Named(fastrnn.StreamPool):
    """what people make of pools"""


def through_pickle(pool):
    return pickle.loads(pickle.dumps(pool))


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, through_pickle])
@each_kind
def test_copies_and_pickles(kind, travel):
    layer = net_of(kind, 5, 7, layers=2).build()
    pool = fastrnn.StreamPool(layer, 5, num_threads=2)
    ids = [pool.join() for _ in range(4)]
    pool.leave(ids.pop(1))
    x = random(3, 3, 5)
    pool.step(ids, x[0])
    with layer.edit() as weights:
        weights["weight_hh_l0"] *= 0
    again = travel(pool)
    assert (again.capacity, again.num_threads) == (5, 2)
    assert again.ids.tolist() == pool.ids.tolist()
    assert again.step(ids, x[1]).tobytes() == pool.step(ids, x[1]).tobytes()
    assert again.join() == pool.join() and again.join() == pool.join()
    pool.step(ids[:1], x[2, :1])
    assert again.step(ids, x[2]).tobytes() != pool.step(ids, x[2]).tobytes(), (
        "one's steps are its own"
    )


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, through_pickle])
def test_a_subclass_travels_with_its_attributes(travel):
    pool = Named(NET.build(), 3)
    pool.names, pool.twin = {"a": pool.join()}, pool
    again = travel(pool)
    assert type(again) is Named and again.names == pool.names and 0 in again
    assert (again.names is pool.names) == (travel is copy.copy)
    assert again.twin is (pool if travel is copy.copy else again)


def test_threads_of_the_layer():
    """None is what a call of the layer may use"""
    layer = fastrnn.LSTM(3, 5, num_threads=2)
    assert layer.stream(num_threads=None).num_threads == 2
    assert fastrnn.StreamPool(layer, 3, num_threads=None).num_threads == 2
    layer.num_threads = None
    assert layer.stream(num_threads=None).num_threads == fastrnn.get_num_threads()
    assert layer.stream().num_threads == fastrnn.StreamPool(layer, 3).num_threads == 1


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda i: np.array(i, np.int32),
                                  lambda i: np.repeat(i, 2)[::2]])  # fmt: skip
def test_reset_of_several(form):
    pool = fastrnn.StreamPool(NET.build(), 4)
    ids = [pool.join() for _ in range(4)]
    pool.step(ids, random(4, 5))
    before = [pool.get_state(i) for i in ids]
    pool.reset(form([ids[2], ids[0]]))
    for i, old in zip(ids, before, strict=True):
        state = pool.get_state(i)
        assert same(state, old) if i in (ids[1], ids[3]) else not any(s.any() for s in state)
    pool.reset(form([]) if form is not np.array else np.zeros(0, np.int64))
    for one in (ids[1], np.int64(ids[3]), np.array(ids[1])):
        pool.reset(one)
    assert not any(s.any() for i in ids for s in pool.get_state(i))


def test_out():
    pool, x, out = fastrnn.StreamPool(NET.build(), 4), random(2, 5), random(2, 7)
    ids, others = [pool.join(), pool.join()], [pool.join(), pool.join()]
    assert pool.step(ids, x, out) is out
    assert pool.step(others, x).tobytes() == out.tobytes()
    buffer = random(24)
    with pytest.raises(ValueError, match="out: overlaps x"):
        pool.step(ids, buffer[:10].reshape(2, 5), buffer[9:23].reshape(2, 7))


def test_steps_allocate_nothing_in_python():
    pool = fastrnn.StreamPool(fastrnn.LSTM(64, 128, num_layers=2), 300)
    ids = np.array([pool.join() for _ in range(300)])
    x, out = random(300, 64), np.empty((300, 128), np.float32)
    left, most = python_memory(lambda: pool.step(ids, x, out), 20)
    assert most < 1024 and left < 256


def test_used_by_two_threads_at_once():
    """a step of much work releases the GIL; who comes meanwhile gets an error, the step its bits"""
    layer = fastrnn.LSTM(64, 128, seed=1)
    pool, x, y, errors = fastrnn.StreamPool(layer, 4000), random(4000, 64), None, []
    ids = np.array([pool.join() for _ in range(4000)])

    end = time.monotonic() + 60

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
            for one in ids:
                pool.reset(one)
            y = pool.step(ids, x)
        except RuntimeError as error:  # or the other one was first
            errors.append(str(error))
    thread.join()
    assert errors, "they never met within a minute"
    assert "in use by another thread" in errors[0]
    assert y is None or y.tobytes() == layer(x[None])[0].tobytes()


def test_a_join_that_is_refused_leaves_nobody():
    """with a state, too: it is one call, and another thread's cannot come between"""
    pool = fastrnn.StreamPool(fastrnn.GRU(64, 128), 10_032)
    ids, x, h = [pool.join() for _ in range(32)], random(20, 32, 64), random(1, 128)
    done, joined, refused, end = threading.Event(), [], 0, time.monotonic() + 60

    def meddle():
        while not done.wait(0.0005):  # so that some come between
            with contextlib.suppress(RuntimeError):
                pool.process(ids, x)

    thread = threading.Thread(target=meddle)
    thread.start()
    while min(len(joined), refused) < 100 and len(joined) < 10_000 and time.monotonic() < end:
        try:
            joined.append(pool.join(h))
        except RuntimeError:
            refused += 1
        time.sleep(0.0001)
    done.set()
    thread.join()
    assert min(len(joined), refused) >= 100, (len(joined), refused)
    assert sorted(pool.ids) == sorted(ids + joined)
