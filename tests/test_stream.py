"""Streams: state, reset, checks, independence of the layer, no allocation.

That a stream gives the bits of the sequence is in test_bits_batch.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from support import (
    DTYPES,
    KINDS,
    LAYOUTS,
    Net,
    in_layout,
    net_of,
    packed,
    problem,
    python_memory,
    random,
    same,
    unpacked,
)

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2)


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
        assert len(state) == (2 if net.has_c else 1)
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


def test_reset_of_one_row():
    stream, alone = NET.build().stream(3), NET.build().stream(3)
    for s, row in ((stream, 1), (alone, [1])):
        s.process(random(3, 3, 5))
        s.reset(row)
    assert same(stream.state, alone.state)


@pytest.mark.parametrize("rows", [[3], [-4], np.array([0, 7])])
def test_reset_of_rows_that_are_not_there(rows):
    stream = NET.build().stream(3)
    stream.process(random(3, 3, 5))
    before = stream.state[0].tobytes()
    with pytest.raises((ValueError, IndexError), match="rows: expected.*2.*got"):
        stream.reset(rows)
    assert stream.state[0].tobytes() == before, "nothing half-reset"


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        (
            np.array([0, 2**63], np.uint64),
            ValueError,
            "rows: .* 0 to 2, got 9223372036854775808 at",
        ),
        ([[0, 1], [1, 0]], ValueError, r"rows: expected shape \[n\], got \[2, 2\]"),
        (np.ma.array([0, 1], mask=[False, True]), TypeError, "rows: expected a plain array"),
        (np.ma.array([True] * 3, mask=[False, True, True]), TypeError, "rows: .*got a masked one"),
    ],
)
def test_reset_of_rows_that_are_no_indices(rows, error, match):
    stream = NET.build().stream(3)
    stream.process(random(3, 3, 5))
    before = stream.state[0].tobytes()
    with pytest.raises(error, match=match):
        stream.reset(rows)
    assert stream.state[0].tobytes() == before, "nothing half-reset"


def test_reset_with_a_mask_of_the_wrong_size():
    with pytest.raises(ValueError, match=r"rows: .*3.*2"):
        NET.build().stream(3).reset(np.array([True, False]))
    with pytest.raises(TypeError, match="rows: "):
        NET.build().stream(3).reset(np.array([0.0, 1.0]))
    stream = NET.build().stream(3)
    stream.process(random(3, 3, 5))
    before = stream.state
    for mask in (np.ones(4, bool), np.ones((3, 1), bool)):
        with pytest.raises(ValueError, match=r"rows: expected shape \[3\], got \["):
            stream.reset(mask)
    assert same(stream.state, before)


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


@each_kind
def test_state_of_one_row_without_its_axis(kind):
    layer = net_of(kind, 5, 7, layers=2).build()
    x, stream = random(4, 5), layer.stream()
    wanted, last = layer(x)
    stream.state = layer(x[:2])[1]
    assert stream.process(x[2:]).tobytes() == wanted[2:].tobytes()
    for ours, without in zip(unpacked(stream.state), unpacked(last), strict=True):
        assert ours.shape == (2, 1, without.shape[1])
    several = layer.stream(batch_size=2)
    with pytest.raises(ValueError, match=r"^state.*: expected shape \[2, 2, .*got \[2, "):
        several.state = last


def test_a_stream_is_made_by_its_layer():
    with pytest.raises(TypeError, match=r"^Stream: expected to be made by layer\.stream\(\)"):
        fastrnn.Stream(fastrnn.GRU(2, 3))


def test_state_is_checked():
    stream = NET.build().stream(3)
    good = random(2, 3, 7)
    with pytest.raises(ValueError, match=r"state\[0\].*2, 3, 7.*got.*2, 4, 7"):
        stream.state = random(2, 4, 7), good
    with pytest.raises(ValueError, match=r"state\[1\].*2, 3, 7.*got.*1, 3, 7"):
        stream.state = good, random(1, 3, 7)
    with pytest.raises(TypeError, match=r"state\[0\].*float32.*got float64"):
        stream.state = good.astype(np.float64), good
    with pytest.raises(TypeError, match="pair|tuple"):
        stream.state = good
    with pytest.raises(ValueError, match=r"expected a pair \(h, c\), got 3 arrays"):
        stream.state = good, good, good
    assert not stream.state[0].any(), "nothing half-set"


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 5), (1, 3, 5)])
def test_shape_of_a_step(shape):
    with pytest.raises(ValueError, match=r"x: expected.*3, 5.*got.*"):
        NET.build().stream(3).step(random(*shape))


@pytest.mark.parametrize("shape", [(5,), (4, 3, 6), (4, 2, 5)])
def test_shape_of_a_block(shape):
    with pytest.raises(ValueError, match=r"(x|block): expected.*3, 5.*got.*"):
        NET.build().stream(3).process(random(*shape))


def test_a_block_without_a_batch_is_for_one_row():
    stream = NET.build().stream(2)
    with pytest.raises(ValueError, match=r"block: expected shape \[T, 2, 5\], got \[6, 5\]"):
        stream.process(random(6, 5))
    assert not stream.state[0].any()


@pytest.mark.parametrize(
    ("batch", "block", "out"),
    [
        (2, (6, 2, 5), (6, 2)),  # whose stride of a row, in bytes, is hidden_size
        (2, (6, 2, 5), (12, 8)),
        (1, (6, 1, 5), (6, 8)),
        (1, (6, 5), (6, 8, 1)),
        (1, (6, 5), (6, 1, 8)),
    ],
)
def test_out_of_a_block_has_the_axes_of_the_block(batch, block, out):
    stream = Net("lstm", 5, 8).build().stream(batch)
    memory = np.zeros(200, np.float32)
    with pytest.raises(ValueError, match=r"out: expected shape \[6, .*8\], got"):
        stream.process(random(*block), out=memory[: np.prod(out)].reshape(out))
    assert not memory.any() and not stream.state[0].any()


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

    @pytest.mark.parametrize("layout", ["inner", "wide", "fortran", "misaligned"])
    def test_gaps(self, method, layout):
        shape = self.shape(method)
        out = in_layout(np.zeros((4, 3, 7), np.float32), layout)
        out = out[0] if method == "step" else out
        assert out.shape == shape and not (out.flags.c_contiguous and out.flags.aligned)
        stream = NET.build().stream(3)
        x = random(*shape[:-1], 5)
        with pytest.raises(ValueError, match="out: expected a C-contiguous aligned array"):
            getattr(stream, method)(x, out=out)
        assert not out.any() and not stream.state[0].any()

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
    left, most = python_memory(lambda: step(x, out=out), 200)
    assert most < 1024
    assert left < 256


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
