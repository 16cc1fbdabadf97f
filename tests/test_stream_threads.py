"""Streams and layers in several threads, and in asyncio: what they compute alone."""

import asyncio
import threading
import time

import pytest

import fastrnn
from support import KINDS, Net, in_threads, net_of, random

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_streams_in_threads_equal_serial(kind):
    net = net_of(kind, 20, 48, layers=2)
    layer, x = net.build(), random(8, 300, 20)

    def steps(k):
        stream = layer.stream()
        return b"".join(stream.step(row).tobytes() for row in x[k])

    serial = [steps(k) for k in range(8)]
    assert in_threads(8, steps) == serial


@pytest.mark.parametrize("batch", [1, 3])
@each_kind
def test_helpers_change_no_bit(kind, batch):
    """steps without a pause, then with pauses in which the helpers fall asleep"""
    layer, x = net_of(kind, 20, 72, layers=2).build(), random(600, batch, 20)
    alone = layer.stream(batch)
    wanted = [alone.step(row) for row in x]
    for threads in (2, 3, 5):
        stream = layer.stream(batch, num_threads=threads)
        for t, row in enumerate(x):
            if t > 590:
                time.sleep(0.002)
            assert stream.step(row).tobytes() == wanted[t].tobytes(), (threads, t)


@each_kind
def test_blocks_of_steps_with_helpers(kind):
    """blocks at once and after pauses: helpers are awake, join in the middle, or sleep"""
    layer, x = net_of(kind, 20, 72, layers=2).build(), random(600, 20)
    wanted = layer.stream().process(x)
    for threads in (2, 3, 5):
        stream, t = layer.stream(num_threads=threads), 0
        for i, block in enumerate((1, 1, 1, 7, 64, 1, 200, 1, 1, 33, 290)):
            time.sleep(0.002 * (i % 3 == 2))
            y = stream.process(x[t : t + block])
            assert y.tobytes() == wanted[t : t + block].tobytes(), (threads, t)
            t += block
        assert t == len(x)


@each_kind
def test_streams_with_helpers_in_threads_equal_serial(kind):
    """more callers than helpers: those who get none compute alone"""
    layer, x = net_of(kind, 20, 72).build(), random(8, 1000, 20)

    def steps(k, threads=2):
        stream = layer.stream(num_threads=threads)
        return b"".join(stream.step(row).tobytes() for row in x[k])

    serial = [steps(k, threads=1) for k in range(8)]
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


def test_used_by_two_threads_at_once():
    """the second one gets an error, the first one its bits"""
    layer, x = fastrnn.LSTM(64, 256, seed=1), random(4000, 64)
    stream, errors, done = layer.stream(), [], threading.Event()
    end = time.monotonic() + 60

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
        while not errors and thread.is_alive() and time.monotonic() < end:
            stream.reset()
            y = stream.process(x)
    except RuntimeError as error:  # or the other one was first
        errors.append(str(error))
        y = None
    done.set()
    thread.join()
    assert errors, "they never met within a minute"
    assert "in use by another thread" in errors[0]
    if y is not None:
        assert y.tobytes() == layer.stream().process(x).tobytes()
