"""StreamPool: what is wrong is a clear error, after which nothing has changed."""

import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from support import Net, random, same

pytestmark = pytest.mark.usefixtures("isa")
NET = Net("lstm", 5, 7, layers=2)
each_method = pytest.mark.parametrize("method", ["step", "process"])


def advance(pool, method, ids, x, out=None):
    """by a step, or by a block of one"""
    if method == "process":
        x, out = [x] if isinstance(x, list) else x[None], None if out is None else out[None]
    return getattr(pool, method)(ids, x, out)


def shapes(name, expected, got):
    return rf"{name}: expected shape \[(T, |1, )?{expected}\], got \[(1, )?{got}\]"


def test_full():
    pool = fastrnn.StreamPool(NET.build(), 2)
    ids = [pool.join(), pool.join()]
    with pytest.raises(RuntimeError, match=r"pool: full, all 2 places are taken; leave\(id\)"):
        pool.join()
    pool.leave(ids[0])
    with pytest.raises(ValueError, match=r"state\[0\]: expected shape"):
        pool.join((random(2, 8), random(2, 7)))
    assert len(pool) == 1 and pool.join() not in ids


WRONG_STEPS = {
    "unknown": (lambda i: [i[0], 77], (2, 5), ValueError, "ids: .*got 77 at position 1"),
    "left": (lambda i: [i[3]], (1, 5), ValueError, "ids: .*in the pool, got"),
    "negative": (lambda i: [-1], (1, 5), ValueError, "ids: .*got -1 at position 0"),
    "huge": (lambda i: [2**63 - 1], (1, 5), ValueError, "ids: .*in the pool"),
    "unsigned": (
        lambda i: np.array([i[0], 2**63], np.uint64),
        (2, 5),
        ValueError,
        "ids: .*in the pool, got 9223372036854775808 at position 1",
    ),
    "masked": (
        lambda i: np.ma.array(i[:2], np.int64, mask=[False, True]),
        (2, 5),
        TypeError,
        r"ids: expected a plain array, got a masked one; use ids.filled\(...\)",
    ),
    "repeated": (lambda i: [i[0], i[1], i[0]], (3, 5), ValueError, "each stream once.*position 2 "),
    "too many": (lambda i: [i[0]] * 9, (9, 5), ValueError, "at most capacity = 4, got 9"),
    "floats": (lambda i: [0.0, 1.0], (2, 5), TypeError, "ids: expected integers.*float64"),
    "bools": (lambda i: np.array([True]), (1, 5), TypeError, "ids: expected integers.*bool"),
    "one number": (
        lambda i: i[0],
        (1, 5),
        ValueError,
        r"ids: expected shape \[n\], got \[\]; try \[id\]$",
    ),
    "two axes": (lambda i: [[i[0]]], (1, 5), ValueError, r"ids: .* \[n\], got \[1, 1\]$"),
    "two axes of an array": (
        lambda i: np.array([i[:2], i[1:3]]),
        (2, 5),
        ValueError,
        r"ids: expected shape \[n\], got",
    ),
    "no ids": (lambda i: None, (1, 5), TypeError, "ids: expected integers"),
    "words": (lambda i: ["a"], (1, 5), TypeError, "ids: expected integers"),
    "rows": (lambda i: i[:2], (3, 5), ValueError, shapes("x", "2, 5", "3, 5")),
    "features": (lambda i: i[:2], (2, 4), ValueError, shapes("x", "2, 5", "2, 4")),
    "axes": (lambda i: i[:2], (5,), ValueError, shapes("x", "2, 5", "5")),
}


@pytest.mark.parametrize("case", WRONG_STEPS)
@each_method
def test_wrong_steps_change_nothing(method, case):
    form, shape, error, message = WRONG_STEPS[case]
    pool = fastrnn.StreamPool(NET.build(), 4)
    ids = [pool.join() for _ in range(4)]
    pool.step(ids, random(4, 5))
    pool.leave(ids[3])
    before = [pool.get_state(i) for i in ids[:3]]
    with pytest.raises(error, match=message):
        advance(pool, method, form(ids), random(*shape))
    assert all(same(pool.get_state(i), b) for i, b in zip(ids, before, strict=False))


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (random(2, 5, dtype=np.float64), None, TypeError, "x: expected dtype float32, got float64"),
        ([[0.0] * 5] * 2, None, TypeError, "x: expected an array"),
        (random(2, 5), random(2, 6), ValueError, shapes("out", "2, 7", "2, 6")),
        (random(2, 5), random(2, 7, dtype=np.float64), TypeError, "out: expected dtype float32"),
        (random(2, 5), random(2, 14)[:, ::2], ValueError, "out: expected a C-contiguous"),
    ],
)
@each_method
def test_wrong_arrays_change_nothing(method, x, out, error, message):
    pool = fastrnn.StreamPool(NET.build(), 4)
    ids = [pool.join(), pool.join()]
    with pytest.raises(error, match=message):
        advance(pool, method, ids, x, out)
    assert not any(s.any() for i in ids for s in pool.get_state(i))


@pytest.mark.parametrize("method", ["leave", "get_state"])
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


WRONG_RESETS = {
    "unknown": (lambda i: 77, ValueError, "expected those of streams in the pool, got 77"),
    "left": (lambda i: i[3], ValueError, "expected those of streams in the pool, got"),
    "one of several": (lambda i: [i[0], i[3]], ValueError, ".*in the pool, got . at position 1"),
    "repeated": (lambda i: [i[0], i[1], i[0]], ValueError, ".*each stream once, got .* position 2"),
    "negative": (lambda i: -1, ValueError, "expected an integer >= 0, got -1"),
    "huge": (lambda i: 2**70, ValueError, "expected an integer <= 9223372036854775807, got"),
    "a float": (lambda i: 1.0, TypeError, "expected integers .*, got float"),
    "floats": (lambda i: [0.0, 1.0], TypeError, "expected integers .*, got list of float64"),
    "a bool": (lambda i: True, TypeError, "expected an integer, got True"),
    "a mask": (lambda i: np.ones(4, bool), TypeError, "expected integers .*, got dtype bool"),
    "a word": (lambda i: "a", TypeError, "expected integers .*, got str"),
    "nothing": (lambda i: None, TypeError, "expected integers .*, got NoneType"),
    "a set": (lambda i: {i[0]}, TypeError, r"expected integers .*, got set; try list\(ids\)"),
    "two axes": (lambda i: [[i[0]]], ValueError, r"expected shape \[n\], got \[1, 1\]"),
    "too many": (lambda i: [i[0]] * 5, ValueError, "expected at most capacity = 4, got 5"),
}


@pytest.mark.parametrize("case", WRONG_RESETS)
def test_wrong_resets_change_nothing(case):
    form, error, message = WRONG_RESETS[case]
    pool = fastrnn.StreamPool(NET.build(), 4)
    ids = [pool.join() for _ in range(4)]
    pool.step(ids, random(4, 5))
    pool.leave(ids[3])
    before = [pool.get_state(i) for i in ids[:3]]
    with pytest.raises(error, match=f"^ids: {message}") as caught:
        pool.reset(form(ids))
    alone = caught.value.__context__ is None or caught.value.__suppress_context__
    assert alone, "one error, not one on top of another"
    assert all(same(pool.get_state(i), b) for i, b in zip(ids, before, strict=False))


def test_wrong_states_change_nothing():
    pool = fastrnn.StreamPool(NET.build(), 4)
    one = pool.join()
    pool.step([one], random(1, 5))
    before, good = pool.get_state(one), random(2, 7)
    for state, error, message in (
        ((good, random(2, 8)), ValueError, r"state\[1\]: expected shape \[2, 7\], got \[2, 8\]"),
        ((good, good.astype(np.float64)), TypeError, r"state\[1\]: expected dtype float32"),
        ((good, None), TypeError, r"state\[1\]: expected an array, got None"),
        (good, TypeError, "state: expected a pair"),
        ((good,), ValueError, "state: expected a pair"),
        ((good, good, good), ValueError, r"state: expected a pair \(h, c\), got 3 arrays"),
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
    ids, following, free = pool._book()
    for book in (
        (ids[:2], following, free),
        (ids, following, [1, 9]),
        (ids, following, [1, 1]),
        (ids, following, [1]),
        (ids, following, [1, 2, 2]),
        (ids, following, [-1, 1, 2]),
        (ids, following[:2], free),
        (ids, [following[0] + 1, *following[1:]], free),
        (ids, [2**62, *following[1:]], free),  # ids would overflow
        ([-1, *ids[1:]], [-4, *following[1:]], [0, 1, 2]),
        ([7, *ids[1:]], following, free),
        ([1, *ids[1:]], following, free),  # of another slot
        ([-4, *ids[1:]], following, free),
        ([following[0], *ids[1:]], following, free),  # which the next stream would have as well
    ):
        with pytest.raises(ValueError, match="never those of a pool"):
            pool._restore(*book)
    pool._restore(ids, following, free)


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
        for name in ("_network", "num_threads", "state", "ids", "step", "join"):
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


@pytest.mark.parametrize("method", ["leave", "get_state"])
@pytest.mark.parametrize(
    ("id", "error"), [(1.0, TypeError), ("a", TypeError), (True, TypeError), (2**70, ValueError)]
)
def test_invalid_ids(method, id, error):
    pool = fastrnn.StreamPool(fastrnn.GRU(3, 4), 2)
    pool.join(), pool.join()
    with pytest.raises(error, match="^id: expected"):
        getattr(pool, method)(id)
    assert len(pool) == 2


def test_what_is_no_id_is_in_no_pool():
    pool = fastrnn.StreamPool(fastrnn.GRU(3, 4), 2)
    first = [pool.join(), pool.join()][0]
    for id in (first, np.int32(first), np.array(first)):
        assert id in pool
    for id in ("x", None, 1.0, True, False, -1, 2**63, -(2**63) - 1, 2**70, [first], 77):
        assert id not in pool
