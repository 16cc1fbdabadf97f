"""StreamPool: the bits of a stream never depend on its neighbours; ids, errors, states, travel."""

import copy
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from support import DTYPES, KINDS, Net, net_of, packed, unpacked

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2)


def random(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def single(state):
    """a pool's state of one stream as a stream of one row has it"""
    return packed(tuple(s[:, None] for s in unpacked(state)))


def same(a, b):
    return all(p.tobytes() == q.tobytes() for p, q in zip(unpacked(a), unpacked(b), strict=True))


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


# errors change nothing


def test_full():
    pool = fastrnn.StreamPool(NET.build(), 2)
    ids = [pool.join(), pool.join()]
    with pytest.raises(RuntimeError, match=r"pool: full, all 2 places are taken; leave\(id\)"):
        pool.join()
    pool.leave(ids[0])
    with pytest.raises(ValueError, match="state h: expected shape"):
        pool.join((random(2, 8), random(2, 7)))
    assert len(pool) == 1 and pool.join() not in ids


WRONG_STEPS = {
    "unknown": (lambda i: [i[0], 77], (2, 5), ValueError, "ids: .*got 77 at position 1"),
    "left": (lambda i: [i[3]], (1, 5), ValueError, "ids: .*in the pool, got"),
    "negative": (lambda i: [-1], (1, 5), ValueError, "ids: .*got -1 at position 0"),
    "huge": (lambda i: [2**63 - 1], (1, 5), ValueError, "ids: .*in the pool"),
    "repeated": (lambda i: [i[0], i[1], i[0]], (3, 5), ValueError, "each stream once.*position 2 "),
    "too many": (lambda i: [i[0]] * 9, (9, 5), ValueError, "at most capacity = 4, got 9"),
    "floats": (lambda i: [0.0, 1.0], (2, 5), TypeError, "ids: expected integers.*float64"),
    "bools": (lambda i: np.array([True]), (1, 5), TypeError, "ids: expected integers.*bool"),
    "one number": (lambda i: i[0], (1, 5), ValueError, r"ids: expected shape \[n\]"),
    "two axes": (lambda i: [[i[0]]], (1, 5), ValueError, r"ids: expected shape \[n\]"),
    "no ids": (lambda i: None, (1, 5), TypeError, "ids: expected integers"),
    "words": (lambda i: ["a"], (1, 5), TypeError, "ids: expected integers"),
    "rows": (lambda i: i[:2], (3, 5), ValueError, r"x: expected shape \[2, 5\], got \[3, 5\]"),
    "features": (lambda i: i[:2], (2, 4), ValueError, r"x: expected shape \[2, 5\], got \[2, 4\]"),
    "axes": (lambda i: i[:2], (5,), ValueError, r"x: expected shape \[2, 5\], got \[5\]"),
}


@pytest.mark.parametrize("case", WRONG_STEPS)
def test_wrong_steps_change_nothing(case):
    form, shape, error, message = WRONG_STEPS[case]
    pool = fastrnn.StreamPool(NET.build(), 4)
    ids = [pool.join() for _ in range(4)]
    pool.step(ids, random(4, 5))
    pool.leave(ids[3])
    before = [pool.get_state(i) for i in ids[:3]]
    with pytest.raises(error, match=message):
        pool.step(form(ids), random(*shape))
    assert all(same(pool.get_state(i), b) for i, b in zip(ids, before, strict=False))


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (random(2, 5, dtype=np.float64), None, TypeError, "x: expected dtype float32, got float64"),
        ([[0.0] * 5] * 2, None, TypeError, "x: expected a NumPy array"),
        (random(2, 5), random(2, 6), ValueError, r"out: expected shape \[2, 7\], got \[2, 6\]"),
        (random(2, 5), random(2, 7, dtype=np.float64), TypeError, "out: expected dtype float32"),
        (random(2, 5), random(2, 14)[:, ::2], ValueError, "out: expected a C-contiguous"),
    ],
)
def test_wrong_arrays_change_nothing(x, out, error, message):
    pool = fastrnn.StreamPool(NET.build(), 4)
    ids = [pool.join(), pool.join()]
    with pytest.raises(error, match=message):
        pool.step(ids, x, out=out)
    assert not any(s.any() for i in ids for s in pool.get_state(i))


def test_out():
    pool, x, out = fastrnn.StreamPool(NET.build(), 4), random(2, 5), random(2, 7)
    ids, others = [pool.join(), pool.join()], [pool.join(), pool.join()]
    assert pool.step(ids, x, out) is out
    assert pool.step(others, x).tobytes() == out.tobytes()
    buffer = random(24)
    with pytest.raises(ValueError, match="out: overlaps x"):
        pool.step(ids, buffer[:10].reshape(2, 5), buffer[9:23].reshape(2, 7))


@pytest.mark.parametrize("method", ["leave", "reset", "get_state"])
def test_unknown_id(method):
    pool = fastrnn.StreamPool(NET.build(), 4)
    with pytest.raises(ValueError, match="id: expected that of a stream in the pool, got 0"):
        getattr(pool, method)(0)
    gone = pool.join()
    pool.leave(gone)
    with pytest.raises(ValueError, match=f"id: expected that of a stream.*got {gone}"):
        getattr(pool, method)(gone)
    with pytest.raises(ValueError, match="id: expected that of a stream"):
        pool.set_state(gone, (random(2, 7), random(2, 7)))


def test_wrong_states_change_nothing():
    pool = fastrnn.StreamPool(NET.build(), 4)
    one = pool.join()
    pool.step([one], random(1, 5))
    before, good = pool.get_state(one), random(2, 7)
    for state, error, message in (
        ((good, random(2, 8)), ValueError, r"state c: expected shape \[2, 7\], got \[2, 8\]"),
        ((good, good.astype(np.float64)), TypeError, "state c: expected dtype float32"),
        ((good, None), TypeError, "state c: expected a NumPy array, got None"),
        (good, TypeError, "state: expected a pair"),
        ((good,), ValueError, "state: expected a pair"),
    ):
        with pytest.raises(error, match=message):
            pool.set_state(one, state)
        assert same(pool.get_state(one), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((fastrnn.Linear(2, 2), 3), TypeError, "layer: expected an RNN, LSTM or GRU, got Linear"),
        ((fastrnn.GRU(2, 3, bidirectional=True), 3), ValueError, "layer: expected bidirectional"),
        ((fastrnn.GRU(2, 3), 0), ValueError, "capacity: expected an integer >= 1, got 0"),
        ((fastrnn.GRU(2, 3), 1.5), TypeError, "capacity: expected an integer"),
        ((fastrnn.GRU(2, 3), 2**20 + 1), ValueError, "capacity: expected.*1048576, got 1048577"),
    ],
)
def test_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        fastrnn.StreamPool(*arguments)
    with pytest.raises(ValueError, match="num_threads: expected an integer >= 1, got 0"):
        fastrnn.StreamPool(fastrnn.GRU(2, 3), 1, num_threads=0)


def test_damaged_book():
    """what a pickle says of the ids is checked: it decides where memory is written"""
    pool = fastrnn.StreamPool(NET.build(), 3)
    pool.join()
    ids, following, free = pool.book()
    for book in (
        (ids[:2], following, free),
        (ids, following, [1, 9]),
        (ids, following, [1, 1]),
        (ids, following, [1]),
        (ids, [following[0] + 1, *following[1:]], free),
        ([7, *ids[1:]], following, free),
    ):
        with pytest.raises(ValueError, match="never those of a pool"):
            pool.restore(*book)
    pool.restore(ids, following, free)


def test_steps_allocate_nothing_in_python():
    pool = fastrnn.StreamPool(fastrnn.LSTM(64, 128, num_layers=2), 300)
    ids = np.array([pool.join() for _ in range(300)])
    x, out = random(300, 64), np.empty((300, 128), np.float32)
    pool.step(ids, x, out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(20):
            pool.step(ids, x, out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1024 and after - before < 256


def test_used_by_two_threads_at_once():
    """a step of much work releases the GIL; who comes meanwhile gets an error, the step its bits"""
    layer = fastrnn.LSTM(64, 128, seed=1)
    pool, x, y, errors = fastrnn.StreamPool(layer, 4000), random(4000, 64), None, []
    ids = np.array([pool.join() for _ in range(4000)])

    def meddle():
        while not errors:
            try:
                pool.get_state(ids[0])
            except RuntimeError as error:
                errors.append(str(error))

    thread = threading.Thread(target=meddle)
    thread.start()
    while not errors:
        try:
            for one in ids:
                pool.reset(one)
            y = pool.step(ids, x)
        except RuntimeError as error:  # or the other one was first
            errors.append(str(error))
    thread.join()
    assert "in use by another thread" in errors[0]
    assert y is None or y.tobytes() == layer(x[None])[0].tobytes()


UNMADE = """
import traceback
import fastrnn
from fastrnn import _core
lstm = fastrnn.LSTM(3, 4)
for _ in range(30):
    pools = [fastrnn.StreamPool(lstm, n) for n in range(1, 40)]  # memory that is dirty
    del pools
    try:
        fastrnn.StreamPool(lstm, 0)
    except ValueError as error:  # shows the locals of the frame that failed, the pool among them
        error = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert "<StreamPool, never initialised>" in "".join(error.format())
    for cls in (_core.Stream, _core.StreamPool, fastrnn.StreamPool):
        raw = cls.__new__(cls)
        for name in ("network", "num_threads", "state", "ids", "step", "join"):
            try:
                found = getattr(raw, name)
                found([0], [0.0]) if name == "step" else found()
            except (RuntimeError, AttributeError, TypeError):
                continue
            raise AssertionError(f"{cls}.{name} worked")
        del raw
    for cls in (_core.Stream, _core.StreamPool):
        try:
            cls(None, 1, 1)
        except TypeError:
            pass
"""


def test_objects_that_were_never_initialised_do_not_crash():
    subprocess.run([sys.executable, "-c", UNMADE], check=True, timeout=120)


@pytest.mark.parametrize("method", ["leave", "reset", "get_state"])
@pytest.mark.parametrize(
    ("id", "error"), [(1.0, TypeError), ("a", TypeError), (True, TypeError), (2**70, ValueError)]
)
def test_ids_that_are_none(method, id, error):
    pool = fastrnn.StreamPool(fastrnn.GRU(3, 4), 2)
    pool.join(), pool.join()
    with pytest.raises(error, match="^id: expected"):
        getattr(pool, method)(id)
    assert len(pool) == 2
