"""Streams: state, reset, checks, independence of the layer, no allocation, threads.

That a stream gives the bits of the sequence is in test_bits_batch.py.
"""

import asyncio
import copy
import itertools
import multiprocessing
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from support import DTYPES, KINDS, LAYOUTS, Net, in_layout, net_of, packed, problem, unpacked

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2)


def random(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@each_kind
def test_shapes(kind):
    net = net_of(kind, 5, 7, layers=2)
    one, three = net.build().stream(), net.build().stream(batch_size=3)
    assert isinstance(one, fastrnn.Stream)
    assert (one.batch_size, three.batch_size) == (1, 3)
    assert one.step(random(5)).shape == (net.width,)
    assert three.step(random(3, 5)).shape == (3, net.width)
    assert one.process(random(4, 5)).shape == (4, net.width)
    assert three.process(random(4, 3, 5)).shape == (4, 3, net.width)
    assert one.process(random(0, 5)).shape == (0, net.width)
    for stream, batch in ((one, 1), (three, 3)):
        state = unpacked(stream.state)
        assert state[0].shape == (2, batch, net.width)
        assert len(state) == (2 if net.cell == "lstm" else 1)
        assert len(state) == 1 or state[1].shape == (2, batch, net.hidden)


@each_kind
def test_starts_at_zero_and_resets_to_zero(kind):
    net = net_of(kind, 5, 7, layers=2)
    stream, x = net.build().stream(3), random(3, 5)
    assert not any(s.any() for s in unpacked(stream.state))
    first = stream.step(x)
    assert stream.step(x).tobytes() != first.tobytes()
    stream.reset()
    assert not any(s.any() for s in unpacked(stream.state))
    assert stream.step(x).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    "rows",
    [[0, 2], np.array([2, 0]), np.array([True, False, True, False])],
)
@each_kind
def test_reset_of_some_rows(kind, rows):
    net = net_of(kind, 5, 7, layers=2)
    stream = net.build().stream(4)
    stream.process(random(3, 4, 5))
    before = unpacked(stream.state)
    stream.reset(rows)
    for old, new in zip(before, unpacked(stream.state), strict=True):
        assert not new[:, [0, 2]].any()
        assert new[:, [1, 3]].tobytes() == old[:, [1, 3]].tobytes()
        assert old[:, [0, 2]].any(), "or nothing was tested"


def test_reset_of_no_rows():
    stream = NET.build().stream(3)
    stream.process(random(3, 3, 5))
    before = unpacked(stream.state)
    stream.reset([])
    stream.reset(np.zeros(3, bool))
    assert before[0].tobytes() == stream.state[0].tobytes()


@pytest.mark.parametrize("rows", [[3], [-4], np.array([0, 7])])
def test_reset_of_rows_that_are_not_there(rows):
    stream = NET.build().stream(3)
    stream.process(random(3, 3, 5))
    before = stream.state[0].tobytes()
    with pytest.raises((ValueError, IndexError), match="rows: expected.*2.*got"):
        stream.reset(rows)
    assert stream.state[0].tobytes() == before, "nothing half-reset"


def test_reset_with_a_mask_of_the_wrong_size():
    with pytest.raises(ValueError, match=r"rows: .*3.*2"):
        NET.build().stream(3).reset(np.array([True, False]))
    with pytest.raises(TypeError, match="rows: "):
        NET.build().stream(3).reset(np.array([0.0, 1.0]))


@each_kind
def test_state_is_a_copy_and_can_be_set(kind):
    net = net_of(kind, 5, 7, layers=2)
    p, stream = problem(net, steps=4, batch=3), net.build().stream(3)
    stream.state = packed(p.state)
    for ours, wanted in zip(unpacked(stream.state), p.state, strict=True):
        assert ours.tobytes() == wanted.tobytes()
    saved = stream.state
    y = stream.process(p.x)
    for s in unpacked(stream.state):
        s[...] = 99  # a copy: the stream does not notice
    assert np.abs(unpacked(stream.state)[0]).max() < 99
    stream.state = saved
    assert stream.process(p.x).tobytes() == y.tobytes()


def test_state_is_checked():
    stream = NET.build().stream(3)
    good = random(2, 3, 7)
    with pytest.raises(ValueError, match=r"h.*2, 3, 7.*got.*2, 4, 7"):
        stream.state = random(2, 4, 7), good
    with pytest.raises(ValueError, match=r"c.*2, 3, 7.*got.*1, 3, 7"):
        stream.state = good, random(1, 3, 7)
    with pytest.raises(TypeError, match=r"h.*float32.*got float64"):
        stream.state = good.astype(np.float64), good
    with pytest.raises(TypeError, match="pair|tuple"):
        stream.state = good
    assert not stream.state[0].any(), "nothing half-set"


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 5), (1, 3, 5)])
def test_shape_of_a_step(shape):
    with pytest.raises(ValueError, match=r"x: expected.*3, 5.*got.*"):
        NET.build().stream(3).step(random(*shape))


@pytest.mark.parametrize("shape", [(5,), (4, 3, 6), (4, 2, 5)])
def test_shape_of_a_block(shape):
    with pytest.raises(ValueError, match=r"(x|block): expected.*3, 5.*got.*"):
        NET.build().stream(3).process(random(*shape))


def test_dtype_of_a_step():
    with pytest.raises(TypeError, match=r"x: expected.*float32.*got.*float64"):
        NET.build().stream().step(random(5, dtype=np.float64))
    with pytest.raises(TypeError, match="x: "):
        NET.build().stream().step([0.0] * 5)


@pytest.mark.parametrize("method", ["step", "process"])
class TestOut:
    def call(self, method, out, x=None):
        x = x if x is not None else random(*((3, 5) if method == "step" else (4, 3, 5)))
        return getattr(NET.build().stream(3), method)(x, out=out)

    def shape(self, method):
        return (3, 7) if method == "step" else (4, 3, 7)

    def test_is_filled_and_returned(self, method):
        out = random(*self.shape(method))
        assert self.call(method, out) is out
        assert out.tobytes() == self.call(method, None).tobytes()

    def test_shape(self, method):
        with pytest.raises(ValueError, match=r"out: expected.*3, 7.*got.*3, 8"):
            self.call(method, random(*self.shape(method)[:-1], 8))

    def test_dtype(self, method):
        with pytest.raises(TypeError, match=r"out: expected.*float32.*got.*float64"):
            self.call(method, random(*self.shape(method), dtype=np.float64))

    def test_read_only(self, method):
        out = random(*self.shape(method))
        out.flags.writeable = False
        with pytest.raises(ValueError, match="out: .*(read-only|writeable|writable)"):
            self.call(method, out)

    def test_overlap_with_x(self, method):
        shape = (3, 5) if method == "step" else (4, 3, 5)
        buffer = random(200)
        x = buffer[: np.prod(shape)].reshape(shape)
        size = np.prod(self.shape(method))
        out = buffer[4 : 4 + size].reshape(self.shape(method))
        with pytest.raises(ValueError, match="out: .*overlap"):
            self.call(method, out, x)

    def test_neighbours_do_not_overlap(self, method):
        shape = (3, 5) if method == "step" else (4, 3, 5)
        buffer = random(200)
        size = np.prod(shape)
        x = buffer[:size].reshape(shape)
        out = buffer[size : size + np.prod(self.shape(method))].reshape(self.shape(method))
        assert self.call(method, out, x) is out


def test_bidirectional_has_no_stream():
    with pytest.raises(ValueError, match=r"bidirectional"):
        fastrnn.GRU(5, 7, bidirectional=True).stream()


@pytest.mark.parametrize("value", [0, -1])
def test_batch_size(value):
    with pytest.raises(ValueError, match=f"batch_size: expected.*1.*got {value}"):
        NET.build().stream(value)
    with pytest.raises(TypeError, match="batch_size: expected an integer"):
        NET.build().stream(1.5)
    with pytest.raises(ValueError, match=f"num_threads: expected.*1.*got {value}"):
        NET.build().stream(num_threads=value)


@pytest.mark.parametrize("method", ["edit", "load_state_dict"])
def test_keeps_the_weights_it_was_made_with(method):
    layer = NET.build()
    x, old = random(5), layer.stream()
    wanted = layer.stream().step(x)
    if method == "edit":
        with layer.edit() as weights:
            for w in weights.values():
                w[...] = 0
    else:
        layer.load_state_dict({name: 0 * w for name, w in layer.state_dict().items()})
    layer(random(3, 1, 5))  # packs the new weights
    new = layer.stream()
    del layer
    assert old.step(x).tobytes() == wanted.tobytes()
    assert not new.step(x).any()


def test_dropout_does_not_act():
    layer = fastrnn.LSTM(5, 7, num_layers=2, dropout=0.9, seed=1)
    assert layer.training
    x = random(6, 1, 5)
    y = layer.stream().process(x[:, 0])
    assert y.tobytes() == layer.eval()(x)[0].tobytes()


@each_kind
def test_steps_allocate_nothing_in_python(kind):
    """no array, no growth: what passing the arguments takes for a moment is below a kilobyte"""
    net = net_of(kind, 256, 512)
    stream, x = net.build().stream(2), random(2, 256)
    out = np.empty((2, net.width), np.float32)
    step = stream.step
    step(x, out=out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in itertools.repeat(None, 200):
            step(x, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1024
    assert after - before < 256


def in_threads(count, work):
    results, errors = [None] * count, []
    barrier = threading.Barrier(count)

    def body(k):
        try:
            barrier.wait(30)
            results[k] = work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
        assert not t.is_alive()
    assert not errors, errors
    return results


@each_kind
def test_streams_in_threads_equal_serial(kind):
    net = net_of(kind, 20, 48, layers=2)
    layer, x = net.build(), random(8, 300, 20)

    def steps(k):
        stream = layer.stream()
        return b"".join(stream.step(row).tobytes() for row in x[k])

    serial = [steps(k) for k in range(8)]
    assert in_threads(8, steps) == serial


@each_kind
def test_layer_shared_by_eight_threads_equals_serial(kind):
    net = net_of(kind, 30, 64, bidirectional=True)
    layer, x = net.build(), random(8, 30, 9, 30)

    def infer(k):
        return b"".join(layer(x[k])[0].tobytes() for _ in range(10))

    serial = [infer(k) for k in range(8)]
    assert in_threads(8, infer) == serial


def test_training_in_eight_threads_equals_serial():
    """tapes of one layer in several threads, and edits of other layers meanwhile"""
    net = Net("lstm", 30, 48)
    layers, x = [net.build(seed=k) for k in range(4)], random(8, 20, 5, 30)

    def train(k):
        layer = layers[k % 4] if k < 4 else net.build(seed=k % 4)
        for _ in range(5):
            y, _, tape = layer.forward(x[k])
            g = layer.backward(tape, y)
            with layer.edit() as weights:
                for name, w in weights.items():
                    w -= 0.01 * g.weights[name]
        return y.tobytes()

    parallel = in_threads(8, train)
    layers = [net.build(seed=k) for k in range(4)]
    assert [train(k) for k in range(8)] == parallel


def step_in_asyncio(layer, x):
    """eight tasks that take turns, each with its own stream; blocks in worker threads"""

    async def serve(rows):
        stream, found = layer.stream(), []
        for row in rows[:-50]:
            found.append(stream.step(row).tobytes())
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        found.append((await loop.run_in_executor(None, stream.process, rows[-50:])).tobytes())
        return b"".join(found)

    async def all_of_them():
        return await asyncio.gather(*(serve(rows) for rows in x))

    return asyncio.run(all_of_them())


@each_kind
def test_asyncio(kind):
    layer, x = net_of(kind, 20, 48, layers=2).build(), random(8, 100, 20)
    assert step_in_asyncio(layer, x) == [layer.stream().process(rows).tobytes() for rows in x]


@given(data=st.data())
@settings(max_examples=30)
def test_process_equals_steps(isa, data):
    """bit for bit, cut anywhere, any layout of the block"""
    kind, dtype = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(DTYPES))
    net = net_of(kind, data.draw(st.integers(1, 20)), data.draw(st.integers(2, 40)),
                 layers=data.draw(st.integers(1, 3)), dtype=dtype)  # fmt: skip
    batch, steps = data.draw(st.integers(1, 7)), data.draw(st.integers(0, 12))
    cut = data.draw(st.integers(0, steps))
    layer = net.build()
    p = problem(net, steps, batch)
    x = in_layout(p.x, data.draw(st.sampled_from(LAYOUTS)))
    one, other = (layer.stream(batch, num_threads=data.draw(st.integers(1, 2))) for _ in range(2))
    one.state = other.state = packed(p.state)
    blocks = one.process(x[:cut]).tobytes() + one.process(x[cut:]).tobytes()
    assert blocks == b"".join(other.step(row).tobytes() for row in x)
    assert same(one.state, other.state)


def same(a, b):
    return all(p.tobytes() == q.tobytes() for p, q in zip(unpacked(a), unpacked(b), strict=True))


TRAVELS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda s: pickle.loads(pickle.dumps(s)),
}


@pytest.mark.parametrize("travel", TRAVELS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@each_kind
def test_copies_and_pickles(kind, dtype, batch, travel):
    """the state and the weights of when the stream was made, edited or not since"""
    net = net_of(kind, 5, 7, layers=2, dtype=dtype)
    layer, x = net.build(), random(9, batch, 5, dtype=np.dtype(dtype))
    stream, later = layer.stream(batch, num_threads=2), layer.stream(batch)
    stream.process(x[:3])
    for _ in range(2):
        with layer.edit() as weights:
            for w in weights.values():
                w *= 1.5
    again = TRAVELS[travel](stream)
    assert (again.batch_size, again.num_threads) == (batch, 2)
    assert same(again.state, stream.state)
    before = stream.state
    y = again.process(x[3:])
    assert same(stream.state, before), "a copy has a memory of its own"
    assert stream.process(x[3:]).tobytes() == y.tobytes()
    assert TRAVELS[travel](later).process(x).tobytes() == later.process(x).tobytes()


def test_pickles_inside_an_edit():
    layer, x = NET.build(), random(3, 5)
    old = layer.stream()
    with layer.edit() as weights:
        weights["weight_hh_l0"] *= 2
        half = layer.stream()  # has what the layer has at this moment
        weights["weight_ih_l0"] *= 2
    new = layer.stream()
    found = {s.process(x).tobytes() for s in (old, half, new)}
    assert len(found) == 3
    for stream in (old, half, new):
        again = pickle.loads(pickle.dumps(stream))
        stream.reset()
        again.reset()
        assert again.process(x).tobytes() == stream.process(x).tobytes()


def test_pickles_while_another_thread_edits():
    """each pickle holds the weights of its own stream, never half of somebody's edit"""
    layer, x = fastrnn.LSTM(64, 128, seed=1), random(2, 64)

    def work(k):
        for _ in range(20):
            if k % 2:
                with layer.edit() as weights:
                    for w in weights.values():
                        w *= 0.99
            else:
                stream = layer.stream()
                again = pickle.loads(pickle.dumps(stream))
                assert again.process(x).tobytes() == stream.process(x).tobytes()

    in_threads(4, work)


def _finish(stream, x):
    return stream.process(x), stream.state


@each_kind
def test_moves_to_another_process(kind, isa):
    """half of the steps here, half in a fresh interpreter on its best instruction set"""
    net = net_of(kind, 5, 7, layers=2)
    stream, x = net.build().stream(3), random(8, 3, 5)
    stream.process(x[:4])
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        y, state = workers.apply(_finish, (stream, x[4:]))
    wanted = stream.process(x[4:])
    if isa == "baseline":
        np.testing.assert_allclose(y, wanted, atol=1e-6)
    else:
        assert y.tobytes() == wanted.tobytes() and same(state, stream.state)


def test_used_by_two_threads_at_once():
    """the second one gets an error, the first one its bits"""
    layer, x = fastrnn.LSTM(64, 256, seed=1), random(4000, 64)
    stream, errors, done = layer.stream(), [], threading.Event()

    def meddle():
        while not done.is_set():
            try:
                stream.reset()
            except RuntimeError as error:
                errors.append(str(error))
                return

    thread = threading.Thread(target=meddle)
    stream.process(x[:1])
    thread.start()
    try:
        while not errors and thread.is_alive():
            stream.reset()
            y = stream.process(x)
    except RuntimeError as error:  # or the other one was first
        errors.append(str(error))
        y = None
    done.set()
    thread.join()
    assert errors and "in use by another thread" in errors[0]
    if y is not None:
        assert y.tobytes() == layer.stream().process(x).tobytes()
