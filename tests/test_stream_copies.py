"""Streams that are copied, pickled, or moved to another process."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import _core, _stream
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


@pytest.mark.parametrize("protocol", [pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_holds_shared_weights_once(protocol):
    """and those who shared them share them where they arrive; others do not"""
    layer, x = fastrnn.LSTM(20, 40, seed=1), random(3, 20)
    pool, streams = fastrnn.StreamPool(layer, 2), [layer.stream() for _ in range(50)]
    one = pool.join()
    for i, stream in enumerate(streams):
        stream.process(x[: i % 3])
    with layer.edit() as weights:
        weights["weight_hh_l0"] *= 2
    other = layer.stream()
    weight_bytes = sum(w.nbytes for w in layer.state_dict().values())
    assert len(pickle.dumps(streams[0], protocol)) > weight_bytes
    file = pickle.dumps((streams, pool, other), protocol)
    assert len(file) < 3.5 * weight_bytes, "two networks, and the states"
    again, pool_again, other_again = pickle.loads(file)
    assert all(s._network is pool_again._network for s in again)
    assert other_again._network is not pool_again._network
    assert other_again.process(x).tobytes() == other.process(x).tobytes()
    assert pool_again.step([one], x[0]).tobytes() == pool.step([one], x[0]).tobytes()
    for a, b in zip(again, streams, strict=True):
        assert a.process(x).tobytes() == b.process(x).tobytes()
        assert same(a.state, b.state)


def test_pickles_of_something_else():
    """what a damaged file asks for is refused like a wrong argument"""
    stream = NET.build().stream(2)
    network, state = stream._network, stream.state
    config, weights = network.config, network.weights()
    narrow = (*config[:3], config[3] - 1, *config[4:])
    for made_of, error, match in (
        ((config, weights[:-1]), ValueError, "weights: expected 8 arrays, got 7"),
        ((config, [weights[0], *weights[:-1]]), ValueError, r"weights: expected shape \[28, 7\]"),
        ((config, [w.astype(np.float64) for w in weights]), TypeError, "weights: expected dtype"),
        ((config, [None] * 8), TypeError, "weights: expected an array, got None"),
        ((narrow, weights), ValueError, "weights: expected shape"),
        ((("mamba", *config[1:]), weights), ValueError, "cell: expected .* got 'mamba'"),
        (((*config[:6], True, 0), weights), ValueError, "weights: expected 16 arrays, got 8"),
    ):
        with pytest.raises(error, match=f"^{match}"):
            _stream._make_network(*made_of)
    for parts, error, match in (
        (("net", 2, 1, state), TypeError, "network: expected the weights of a stream, got str"),
        ((network, 0, 1, state), ValueError, "batch_size: expected an integer from 1"),
        ((network, 2, 0, state), ValueError, "num_threads: expected an integer from 1"),
        ((network, 3, 1, state), ValueError, r"state\[0\]: expected shape \[2, 3, 7\], got"),
        ((network, 2, 1, None), TypeError, r"state: expected a pair \(h, c\), got NoneType"),
    ):
        with pytest.raises(error, match=f"^{match}"):
            _stream._make_stream(*parts)
    with pytest.raises(TypeError, match="^network: expected the weights of a stream, got int"):
        _stream._make_pool(fastrnn.StreamPool, 3, 3, 1, ([], [], []), {})


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
    if not _core.has_fma():
        np.testing.assert_allclose(y, wanted, atol=1e-6)
    else:
        assert y.tobytes() == wanted.tobytes() and same(state, stream.state)
