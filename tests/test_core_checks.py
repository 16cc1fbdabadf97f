"""What the core itself checks: Python has looked before, but a wrong array would be read past."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from support import in_layout, random

T, B, I, H = 4, 3, 5, 7


def frozen(a):
    a.flags.writeable = False
    return a


def weights():
    return [random(4 * H, I), random(4 * H, H), random(4 * H), random(4 * H)]


def lstm(pack=True):
    network = _core.Network("lstm", "float32", I, H, 1, True, False, 0)
    if pack:
        network.pack(weights())
    return network


def passing():
    """arguments of a pass forward, in their order"""
    state = {name: random(1, B, H) for name in ("h0", "c0", "hn", "cn")}
    return {
        "x": random(T, B, I), "h0": state["h0"], "c0": state["c0"], "lengths": None,
        "y": random(T, B, H), "hn": state["hn"], "cn": state["cn"],
        "dropout": 0.0, "seed": 0, "threads": 1,
    }  # fmt: skip


def counts(*values, dtype=np.int64):
    return np.array(values, dtype)


WRONG_PASSES = [
    ({"x": None}, TypeError, "x: expected a NumPy array of float32, got NoneType"),
    ({"x": random(T, B, I, dtype=np.float64)}, TypeError, "x: expected dtype float32, got float64"),
    ({"x": random(T, B)}, ValueError, r"x: expected shape \[T, B, I\], got \[4, 3\]"),
    ({"x": random(T, B, I + 1)}, ValueError, r"x: expected shape \[4, 3, 5\], got \[4, 3, 6\]"),
    (
        {"x": random(T, B, I)[::-1]},
        ValueError,
        r"x: expected strides .* got strides of \[-60, 20, 4\]",
    ),
    ({"x": random(T, B, I)[:, ::-1]}, ValueError, r"x: .* not negative, got .* \[60, -20, 4\]"),
    (
        {"x": in_layout(random(T, B, I), "inner")},
        ValueError,
        "x: expected a unit inner stride and aligned data, got strides of ",
    ),
    (
        {"x": in_layout(random(T, B, I), "misaligned")},
        ValueError,
        "x: .* aligned data, got data at an address that is no multiple",
    ),
    (
        {"x": np.broadcast_to(random(I), (1, 2**28 + 1, I))},
        ValueError,
        "x: .* B = 268435456 rows, got",
    ),
    (
        {"x": np.broadcast_to(random(I), (2**31, 1, I))},
        ValueError,
        "x: expected at most T = 2147483647",
    ),
    ({"y": None}, TypeError, "y: expected an array, got None"),
    ({"hn": None}, TypeError, "hn: expected an array, got None"),
    ({"cn": None}, TypeError, "cn: expected an array, got None"),
    ({"y": frozen(random(T, B, H))}, ValueError, "y: expected a writable array"),
    ({"y": random(T, B, H - 1)}, ValueError, r"y: expected shape \[4, 3, 7\], got \[4, 3, 6\]"),
    ({"y": random(T, B - 1, H)}, ValueError, r"y: expected shape \[4, 3, 7\], got \[4, 2, 7\]"),
    ({"hn": frozen(random(1, B, H))}, ValueError, "hn: expected a writable array"),
    ({"hn": random(1, B, H + 1)}, ValueError, r"hn: expected shape \[1, 3, 7\], got \[1, 3, 8\]"),
    ({"h0": random(B, H)}, ValueError, r"h0: expected shape \[1, 3, 7\], got \[3, 7\]"),
    ({"c0": random(1, B, 2 * H)[..., ::2]}, ValueError, "c0: expected a C-contiguous aligned"),
    ({"c0": in_layout(random(1, B, H), "misaligned")}, ValueError, "c0: .* aligned array"),
    ({"lengths": [1, 2, 3]}, TypeError, "lengths: expected a NumPy array of int64, got list"),
    (
        {"lengths": counts(1, 2, 3, dtype=np.int32)},
        TypeError,
        "lengths: expected dtype int64, got int32",
    ),
    (
        {"lengths": counts(1, 0, 2, 0, 3, 0)[::2]},
        ValueError,
        r"lengths: expected a C-contiguous .* got one of shape \[3\] with strides of \[16\]",
    ),
    (
        {"lengths": in_layout(counts(1, 2, 3), "misaligned")},
        ValueError,
        "lengths: .* aligned array",
    ),
    ({"lengths": counts(1, 2)}, ValueError, r"lengths: expected shape \[3\], got \[2\]"),
    ({"lengths": counts(1, 2, 3, 4)}, ValueError, r"lengths: expected shape \[3\], got \[4\]"),
    ({"lengths": counts(1, 2, 3)[:, None]}, ValueError, r"lengths: expected shape \[3\], got"),
    ({"lengths": counts(1, -1, 3)}, ValueError, r"lengths: .* 0\.\.T = 4, got -1 at row 1"),
    ({"lengths": counts(1, 2, T + 1)}, ValueError, r"lengths: .* 0\.\.T = 4, got 5 at row 2"),
    ({"dropout": -0.1}, ValueError, "dropout: expected a number from 0 to 1, got -0.1"),
    ({"dropout": 1.1}, ValueError, "dropout: expected a number from 0 to 1, got 1.1"),
    ({"dropout": float("nan")}, ValueError, "dropout: expected a number from 0 to 1, got nan"),
    ({"threads": -1}, ValueError, "threads: expected 0 or more, got -1"),
]


@pytest.mark.parametrize(("change", "error", "match"), WRONG_PASSES)
def test_passes_forward(change, error, match):
    network, good = lstm(), passing()
    with pytest.raises(error, match=f"^{match}"):
        network.run(*(good | change).values())
    with pytest.raises(error, match=f"^{match}"):
        network.forward(*(good | change).values(), True, False)
    network.run(*good.values())


UNMADE = """
import numpy as np
from fastrnn import _core
a = np.zeros((2, 2), np.float32)
uses = {
    _core.Network: {
        "config": None, "pack": ([],), "explain": (1, 1, False, 1), "freeze": (),
        "run": (a, a, a, None, a, a, a, 0.0, 0, 1), "plain_call": (a, None, False, 1),
        "plain_forward": (a, None, False, 1),
    },
    _core.Tape: {"nbytes": None, "steps": None, "batch": None},
    _core.Dense: {
        "pack": (a, a[0]), "run": (a, a, 1), "call": (a, 1), "backward": (a, a, a, a, a, 1),
    },
    _core.Follower: {
        "forward": (a, None, None, [], (), 1, False, None), "fix": ([], 1),
        "backward": (a, a, a, [], (), 1, (), (), None),
    },
}
for _ in range(30):
    made = [_core.Dense("float32", n, n, True) for n in range(1, 40)]
    made += [_core.Network("lstm", "float32", n, n, 1, True, False, 0) for n in range(1, 40)]
    made += [_core.Follower("lstm", n, n, 1, True, False, 0) for n in range(1, 40)]
    del made  # memory that is dirty
    for cls, members in uses.items():
        raw = cls.__new__(cls)
        for name, arguments in members.items():
            try:
                found = getattr(raw, name)
                found(*arguments)
            except (RuntimeError, ValueError) as error:
                assert "never initialised" in str(error) or "never called" in str(error) or (
                    "held" in str(error)), error
                continue
            assert name == "freeze", f"{cls}.{name} worked"
        del raw
"""


def test_objects_that_were_never_initialised_do_not_crash():
    subprocess.run([sys.executable, "-c", UNMADE], check=True, timeout=120)


def test_a_tape_counts_what_it_keeps_of_lengths():
    """a number for each step, of which a short row keeps nothing else"""
    steps = 1000
    tape = fastrnn.GRU(1, 2).forward(np.zeros((steps, 1, 1), np.float32), lengths=[0])[2]
    assert tape.nbytes >= 8 * steps


def test_lengths_are_read_once():
    """they are copied with the GIL: whoever writes to them while a pass runs changes nothing"""
    rows = 1_000_000  # which take long to be sorted
    network = _core.Network("rnn_tanh", "float32", 1, 1, 1, False, False, 0)
    network.pack([np.ones((1, 1), np.float32)] * 2)
    x, y = (np.full((1, rows, 1), value, np.float32) for value in (1, 7))
    lengths, state = np.ones(rows, np.int64), np.zeros((1, rows, 1), np.float32)
    running = threading.Lock()
    running.acquire()

    def write():
        with running:
            lengths[:] = 0

    thread, interval = threading.Thread(target=write), sys.getswitchinterval()
    sys.setswitchinterval(1000)  # so that it gets the GIL where run() releases it, not before
    try:
        thread.start()
        running.release()
        network.run(x, None, None, lengths, y, state, None, 0.0, 0, 1)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert y.min() > 0


def going_back():
    return {
        "dy": random(T, B, H), "dh": random(1, B, H), "dc": random(1, B, H),
        "dx": random(T, B, I), "dh0": random(1, B, H), "dc0": random(1, B, H),
        "grads": weights(), "threads": 1, "step_norms": np.zeros((1, T, B)),
    }  # fmt: skip


WRONG_PASSES_BACK = [
    ({"dy": random(T - 1, B, H)}, ValueError, r"dy: expected shape \[4, 3, 7\], got \[3, 3, 7\]"),
    ({"dh": random(1, B, H - 1)}, ValueError, r"dh: expected shape \[1, 3, 7\], got \[1, 3, 6\]"),
    ({"dc": random(2, B, H)}, ValueError, r"dc: expected shape \[1, 3, 7\], got \[2, 3, 7\]"),
    ({"dx": random(T, B, I - 1)}, ValueError, r"dx: expected shape \[4, 3, 5\], got \[4, 3, 4\]"),
    ({"dx": frozen(random(T, B, I))}, ValueError, "dx: expected a writable array"),
    ({"dh0": frozen(random(1, B, H))}, ValueError, "dh0: expected a writable array"),
    ({"dc0": random(B, H)}, ValueError, r"dc0: expected shape \[1, 3, 7\], got \[3, 7\]"),
    ({"grads": weights()[:3]}, ValueError, "grads: expected 4 arrays, got 3"),
    ({"grads": [*weights(), random(H)]}, ValueError, "grads: expected 4 arrays, got 5"),
    ({"grads": [None, *weights()[1:]]}, TypeError, "grads: expected an array, got None"),
    ({"grads": [*map(frozen, weights())]}, ValueError, "grads: expected a writable array"),
    ({"threads": -1}, ValueError, "threads: expected 0 or more, got -1"),
    ({"step_norms": np.zeros((T, B))}, ValueError, r"step_norms: expected shape \[1, 4, 3\], got"),
    (
        {"step_norms": frozen(np.zeros((1, T, B)))},
        ValueError,
        "step_norms: expected a writable array",
    ),
]


@pytest.mark.parametrize(("change", "error", "match"), WRONG_PASSES_BACK)
def test_passes_back(change, error, match):
    network, good = lstm(), going_back()
    tape = network.forward(*passing().values(), True, False)
    with pytest.raises(error, match=f"^{match}"):
        network.backward(tape, *(good | change).values())
    network.backward(tape, *good.values())
    with pytest.raises(ValueError, match="^tape: recorded by another network"):
        lstm().backward(tape, *good.values())


@pytest.mark.parametrize(
    ("arrays", "error", "match"),
    [
        (weights()[:3], ValueError, "weights: expected 4 arrays, got 3"),
        ([None, *weights()[1:]], TypeError, "weights: expected an array, got None"),
        ([*weights()[:3], random(4 * H + 1)], ValueError, r"weights: expected shape \[28\]"),
        ([random(I, 4 * H).T, *weights()[1:]], ValueError, "weights: expected a C-contiguous"),
    ],
)
def test_weights(arrays, error, match):
    network = lstm(pack=False)
    with pytest.raises(error, match=f"^{match}"):
        network.pack(arrays)
    for use in (
        lambda: network.run(*passing().values()),
        lambda: network.forward(*passing().values(), True, False),
        lambda: _core.Stream(network),
        lambda: _core.StreamPool(network, 1, 1),
    ):
        with pytest.raises(ValueError, match=r"^network: pack\(\) was never called"):
            use()


GOOD = ("lstm", "float32", I, H, 1, True, False, 0)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (0, "mamba", "cell: expected rnn_tanh, rnn_relu, lstm or gru, got 'mamba'"),
        (1, "float16", "dtype: expected float32 or float64, got 'float16'"),
        (2, 0, "input_size: expected an integer from 1 to 1048576, got 0"),
        (3, 2**20 + 1, "hidden_size: expected an integer from 1 to 1048576, got 1048577"),
        (4, -1, "num_layers: expected an integer from 1"),
        (7, -1, "proj_size: expected an integer from 0"),
        (7, H, "proj_size: expected 0, or for an LSTM less than hidden_size=7, got 7"),
    ],
)
def test_networks(place, value, match):
    with pytest.raises(ValueError, match=f"^{match}"):
        _core.Network(*GOOD[:place], value, *GOOD[place + 1 :])
    with pytest.raises(ValueError, match="^proj_size: expected 0.* got 2 for gru"):
        _core.Network("gru", *GOOD[1:7], 2)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_threads_of_streams(threads):
    for make in (_core.Stream, _core.StreamPool):
        with pytest.raises(ValueError, match=f"^num_threads: expected .* 1 to 1024, got {threads}"):
            make(lstm(), 1, threads)


def dense():
    made = _core.Dense("float32", I, H, True)
    made.pack(random(H, I), random(H))
    return made


WRONG_DENSE = [
    ("pack", {0: None}, TypeError, "weight: expected an array, got None"),
    ("pack", {1: None}, TypeError, "bias: expected an array, got None"),
    ("pack", {0: random(I, H)}, ValueError, r"weight: expected shape \[7, 5\], got \[5, 7\]"),
    ("pack", {1: random(H + 1)}, ValueError, r"bias: expected shape \[7\], got \[8\]"),
    ("run", {0: None}, TypeError, "x: expected a NumPy array, got NoneType"),
    ("run", {0: random(I)}, ValueError, r"x: expected shape \[N, n\], got \[5\]"),
    ("run", {0: np.broadcast_to(random(I), (2**31, I))}, ValueError, "x: expected shape"),
    ("run", {0: random(B, 2 * I)[:, ::2]}, ValueError, "x: expected a C-contiguous aligned array"),
    ("run", {1: None}, TypeError, "y: expected an array, got None"),
    ("run", {1: random(B - 1, H)}, ValueError, r"y: expected shape \[3, 7\], got \[2, 7\]"),
    ("run", {1: frozen(random(B, H))}, ValueError, "y: expected a writable array"),
    ("run", {2: -1}, ValueError, "threads: expected 0 or more"),
    ("backward", {1: None}, TypeError, "dy: expected an array, got None"),
    ("backward", {1: random(B + 1, H)}, ValueError, r"dy: expected shape \[3, 7\], got \[4, 7\]"),
    ("backward", {2: frozen(random(B, I))}, ValueError, "dx: expected a writable array"),
    ("backward", {3: None}, TypeError, "dweight: expected an array, got None"),
    ("backward", {4: random(I)}, ValueError, r"dbias: expected shape \[7\], got \[5\]"),
]


@pytest.mark.parametrize(("method", "change", "error", "match"), WRONG_DENSE)
def test_dense(method, change, error, match):
    good = {
        "pack": [random(H, I), random(H)],
        "run": [random(B, I), random(B, H), 1],
        "backward": [random(B, I), random(B, H), random(B, I), random(H, I), random(H), 1],
    }[method]
    made = dense()
    with pytest.raises(error, match=f"^{match}"):
        getattr(made, method)(*[change.get(i, a) for i, a in enumerate(good)])
    getattr(made, method)(*good)
    if method != "pack":
        with pytest.raises(ValueError, match=r"^dense: pack\(\) was never called"):
            getattr(_core.Dense("float32", I, H, True), method)(*good)


def test_dense_keeps_what_it_takes():
    """large arrays, whose memory goes back to the system"""
    size = 2**20
    made, x, y = _core.Dense("float32", 1, size, True), random(1, 1), np.empty((1, size), "f")
    assert made.take(np.zeros((size, 1), "f"), np.full(size, 3, "f"), 1)
    made.run(x, y, 1)
    assert (y == 3).all()


def test_sizes_of_dense():
    for size in (0, 2**20 + 1):
        expected = f"_features: expected an integer from 1 to 1048576, got {size}$"
        with pytest.raises(ValueError, match=f"^in{expected}"):
            _core.Dense("float32", size, H, True)
        with pytest.raises(ValueError, match=f"^out{expected}"):
            _core.Dense("float32", I, size, True)
    with pytest.raises(ValueError, match="^dtype: expected float32 or float64, got 'float16'"):
        _core.Dense("float16", I, H, True)
    with pytest.raises(TypeError, match="^bias: expected None, got ndarray"):
        _core.Dense("float32", I, H, False).pack(random(H, I), random(H))


def test_sequences_too_long_to_count():
    """of no rows, so that they take no memory"""
    with pytest.raises(
        ValueError, match="^x: expected at most T = 2147483647 steps of B = 268435456 rows"
    ):
        fastrnn.GRU(I, H)(np.zeros((2**31, 0, I), np.float32))
