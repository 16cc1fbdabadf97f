"""Streams that are copied, pickled, or moved to another process."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import fastrnn
from support import DTYPES, KINDS, Net, in_threads, net_of, random, same

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2)


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
