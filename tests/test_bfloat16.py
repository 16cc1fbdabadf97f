"""Weights that are bfloat16: rounded, found by layers, read in half the bytes, the bits of float32.

What one row computes is compared with rows of a batch, which read float32, and with the oracle.
"""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn.convert import to_bfloat16
from support import KINDS, assert_close, assert_same_bits, expected, net_of, problem, random, run
from weight_files import header_of


def nearest(value):
    """the nearest number of 8 bits, by float64, where every float32 and its quotients are exact"""
    if not np.isfinite(value) or value == 0:
        return value
    exponent = max(int(np.frexp(np.float64(value))[1]), -125)
    unit = np.ldexp(np.float64(1), exponent - 8)
    found = np.rint(np.float64(value) / unit) * unit
    return found if abs(found) < 2.0**128 else np.copysign(np.inf, found)


SPECIAL = np.array(
    [0, -0.0, 1, -1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-23, np.inf, -np.inf, 3.4e38, -3.4e38,
     1e-45, -1e-45, 1e-38, 9.2e-41, 2**-133, 1.5 * 2**-133, np.pi],
    np.float32,
)  # fmt: skip


def rounds(values):
    got = to_bfloat16({"w": values[None]})["w"][0]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [nearest(value) for value in values])
    np.testing.assert_array_equal(np.signbit(got), np.signbit(values))
    assert not (got.view(np.uint32) & 0xFFFF).any()


def test_to_the_nearest_and_of_two_to_the_even_one():
    rounds(SPECIAL)
    drawn = np.random.default_rng(0).standard_normal(999).astype(np.float32)
    rounds(drawn)
    change = np.abs(to_bfloat16({"w": drawn[None]})["w"][0] - drawn)
    assert (change <= np.abs(drawn) * 2.0**-8).all()  # as its docstring says


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_any_number(values):
    rounds(np.array(values, np.float32))


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF80FFFF, 0x7FC00000])
def test_what_is_no_number_stays_none(bits):
    got = to_bfloat16({"w": np.array([[bits]], np.uint32).view(np.float32)})["w"]
    assert np.isnan(got).all() and not (got.view(np.uint32) & 0xFFFF).any()


def test_biases_are_copied():
    layer = fastrnn.GRU(3, 4, seed=0)
    given = layer.state_dict()
    before = copy.deepcopy(given)
    got = to_bfloat16(given)
    assert_same_bits(given, before)
    assert list(got) == list(given)
    for name, array in got.items():
        is_bias = name.startswith("bias")
        assert (array.tobytes() == given[name].tobytes()) == is_bias
        assert not np.shares_memory(array, given[name])
    cut = {"w": np.asfortranarray(random(5, 6))[::2, ::-1]}
    np.testing.assert_array_equal(to_bfloat16(cut)["w"], to_bfloat16({"w": cut["w"].copy()})["w"])
    cube = random(2, 3, 4)
    flat = to_bfloat16({"w": cube.reshape(6, 4)})["w"]
    np.testing.assert_array_equal(to_bfloat16({"w": cube})["w"], flat.reshape(2, 3, 4))


def test_refused():
    layer = fastrnn.RNN(2, 3)
    with pytest.raises(TypeError, match=r"weights: expected a dict of arrays by name, got RNN; st"):
        to_bfloat16(layer)
    with pytest.raises(TypeError, match=r"weights: expected a dict of arrays by name, got list$"):
        to_bfloat16([1.0])
    with pytest.raises(TypeError, match=r"weights\['w'\]: expected dtype float32, got float64"):
        to_bfloat16({"w": np.ones((2, 2))})


def rounded(net, **options):
    layer = net.build(**options)
    layer.load_state_dict(to_bfloat16(layer.state_dict()))
    return layer


def weights_read(layer, steps=1, batch=1):
    return [plan["weights"] for plan in layer.explain(steps, batch).layers]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_bits(kind, threads, isa):
    net = net_of(kind, 61, 150, layers=2)
    layer = rounded(net, num_threads=threads)
    assert weights_read(layer) == ["bfloat16"] * 2
    x, state = random(9, 3, 61), None
    y = layer(x)[0]
    stream = layer.stream(num_threads=threads)
    pool = fastrnn.StreamPool(layer, 1)
    streams = [pool.join()]
    for t in range(9):
        assert stream.step(x[t, 1]).tobytes() == y[t, 1].tobytes()
        assert pool.step(streams, x[t, 1:2]).tobytes() == y[t, 1].tobytes()
        one, state = layer(x[t : t + 1, 1:2], state)
        assert one.tobytes() == y[t, 1].tobytes()
    assert layer(x[:, 1:2])[0].tobytes() == y[:, 1:2].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_oracle(kind, isa):
    """forward and backward"""
    net = net_of(kind, 33, 101, bidirectional=True)
    layer, p = rounded(net), problem(net, 7, 1)
    assert weights_read(layer) == ["bfloat16"]
    assert_close(run(layer, p), expected(layer.state_dict(), p), "float32")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(129, 97), (200, 64), (1, 50_000), (64, 203)])
def test_linear(inputs, outputs, bias, isa):
    """one row, by one thread and by more, and a part of a vector of outputs"""
    head = fastrnn.Linear(inputs, outputs, bias=bias, seed=0)
    head.load_state_dict(to_bfloat16(head.state_dict()))
    x = random(3, inputs)
    y = head(x)
    for row in range(3):
        assert head(x[row]).tobytes() == y[row].tobytes()
        assert head(x[row : row + 1]).tobytes() == y[row].tobytes()
    w = head.parameters()
    wanted = x.astype(np.float64) @ w["weight"].astype(np.float64).T + (w["bias"] if bias else 0)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    with head.edit() as p:
        p["weight"][-1, -1] = np.pi  # read as it is again
    assert head(x[0]).tobytes() == head(x)[0].tobytes()
    assert head(x[0])[-1] != y[0, -1]


def test_seen_with_every_change_of_the_weights():
    layer = fastrnn.LSTM(64, 96, num_layers=2, bidirectional=True, seed=0)
    assert weights_read(layer) == ["float32"] * 2
    whole = layer.explain(1, 1)
    layer.load_state_dict(to_bfloat16(layer.state_dict()))
    assert weights_read(layer) == ["bfloat16"] * 2
    assert weights_read(layer, batch=2) == ["float32"] * 2
    half = layer.explain(1, 1)
    assert half.recurrent_weight_bytes == whole.recurrent_weight_bytes / 2
    assert half.packed_bytes > 1.4 * whole.packed_bytes
    with layer.edit() as p:
        p["weight_hh_l1_reverse"][-1, -1] = np.pi
    assert weights_read(layer) == ["bfloat16", "float32"]
    with layer.edit() as p:
        p["bias_hh_l0"][:] = np.pi  # of which none need be one
        p["weight_hh_l1_reverse"][-1, -1] = 3
    assert weights_read(layer) == ["bfloat16"] * 2
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert weights_read(copied) == ["bfloat16"] * 2


def test_others_are_read_as_they_are():
    small = fastrnn.LSTM(8, 16, seed=0)
    small.load_state_dict(to_bfloat16(small.state_dict()))
    assert weights_read(small) == ["float32"]  # which lie in a first-level cache
    wide = fastrnn.GRU(64, 128, seed=0, dtype=np.float64)
    with wide.edit() as p:
        for array in p.values():
            array[...] = 0.5
    assert weights_read(wide) == ["float64"]


def test_a_stream_keeps_its_own():
    layer = fastrnn.GRU(64, 128, seed=0)
    x = random(3, 64)
    before, of_float32 = layer.stream().process(x), layer.stream()
    layer.load_state_dict(to_bfloat16(layer.state_dict()))
    of_bfloat16, wanted = layer.stream(), layer(x)[0]
    with layer.edit() as p:
        p["weight_hh_l0"][0, 0] = np.pi
    assert of_float32.process(x).tobytes() == before.tobytes()
    assert of_bfloat16.process(x).tobytes() == wanted.tobytes()
    assert copy.deepcopy(of_bfloat16).batch_size == 1


def test_numbers_that_are_none_and_small_ones():
    """what is read in halves is what it was: infinities, NaNs, the smallest numbers"""
    layer = fastrnn.RNN(64, 128, nonlinearity="relu", seed=0)
    with layer.edit() as p:
        for name in ("weight_ih_l0", "weight_hh_l0"):
            values = to_bfloat16({"w": p[name]})["w"]
            values.reshape(-1)[:6] = [np.inf, -np.inf, np.nan, 2**-133, -0.0, -(2**-126)]
            p[name][...] = values
    assert weights_read(layer) == ["bfloat16"]
    x = random(4, 2, 64)
    y = layer(x)[0]
    np.testing.assert_array_equal(layer.stream().process(x[:, 0]), y[:, 0])


@pytest.mark.parametrize("compact", [False, True])
def test_files(compact, reader, tmp_path):
    layer, head = fastrnn.LSTM(30, 40, seed=0), fastrnn.Linear(40, 5, seed=1)
    layer.load_state_dict(to_bfloat16(layer.state_dict()))
    halves = random(4, 5).astype(np.float16).astype(np.float32)
    scale = {"whole": random(3), "halves": halves, "one": np.float32(1.5).reshape(()),
             "none": np.empty((0, 3), np.float32), "doubles": np.ones(3)}  # fmt: skip
    model = {"lstm": layer, "head": head, "scale": scale}
    fastrnn.save(tmp_path / "f", model, {"note": "n"}, compact=compact)
    kinds = {name: entry["dtype"] for name, entry in header_of(tmp_path / "f").items()
             if name != "__metadata__"}  # fmt: skip
    small = ("BF16", "F16") if compact else ("F32", "F32")
    assert kinds == {
        "lstm.weight_ih_l0": small[0], "lstm.weight_hh_l0": small[0], "lstm.bias_ih_l0": "F32",
        "lstm.bias_hh_l0": "F32", "head.weight": "F32", "head.bias": "F32", "scale.whole": "F32",
        "scale.halves": small[1], "scale.one": small[0], "scale.none": small[0],
        "scale.doubles": "F64",
    }  # fmt: skip
    again = fastrnn.load(tmp_path / "f")
    assert_same_bits(again["lstm"].state_dict(), layer.state_dict())
    assert_same_bits(again["head"].state_dict(), head.state_dict())
    assert_same_bits(again["scale"], scale)
    assert fastrnn.load_metadata(tmp_path / "f")["note"] == "n"


def test_compact_files_of_one_layer_and_of_arrays(reader, tmp_path):
    layer = fastrnn.GRU(30, 40, bias=False, seed=0)
    layer.load_state_dict(to_bfloat16(layer.state_dict()))
    layer.save(tmp_path / "whole")
    layer.save(tmp_path / "half", compact=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    assert_same_bits(fastrnn.load(tmp_path / "half").state_dict(), layer.state_dict())
    fastrnn.save_tensors(tmp_path / "arrays", layer.state_dict(), compact=True)
    assert_same_bits(fastrnn.load_tensors(tmp_path / "arrays"), layer.state_dict())
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    special = {"BF16": to_bfloat16({"w": SPECIAL[None]})["w"], "F16": halves.astype(np.float32)}
    fastrnn.save_tensors(tmp_path / "special", special, compact=True)
    assert {name: header_of(tmp_path / "special")[name]["dtype"] for name in special} == {
        name: name for name in special
    }
    again = fastrnn.load_tensors(tmp_path / "special")
    for name, array in special.items():
        assert again[name].tobytes() == array.tobytes(), name
    for save in (layer.save, lambda path, **o: fastrnn.save(path, layer, **o),
                 lambda path, **o: fastrnn.save_tensors(path, {}, **o)):  # fmt: skip
        with pytest.raises(TypeError, match="compact: expected True or False, got 1"):
            save(tmp_path / "no", compact=1)
    assert not (tmp_path / "no").exists()


def test_no_bit_is_lost(tmp_path):
    """one of the lower sixteen is enough to stay; what float16 cannot hold is no error"""
    given = {"exact": np.full((2, 3), 1.5, np.float32)}
    for bit in range(16):
        bits = np.full(3, 0x3FC00000, np.uint32)
        bits[bit % 3] |= 1 << bit
        given[f"bit {bit}"] = bits.view(np.float32)
    for value in (1e6 + 1, 3.4e38, np.pi * 1e-9, 2**-149, 2**-24 + 2**-35):
        given[str(value)] = np.array([1, value], np.float32)
    signalling = np.array([0x7F800001, 0x3F800001], np.uint32)
    given["signalling"] = signalling.view(np.float32)
    with np.errstate(all="raise"):
        fastrnn.save_tensors(tmp_path / "f", given, compact=True)
    entries = header_of(tmp_path / "f")
    in_half = {name for name, entry in entries.items() if entry["dtype"] == "F16"}
    assert in_half == {f"bit {bit}" for bit in (13, 14, 15)}
    assert [name for name, entry in entries.items() if entry["dtype"] == "BF16"] == ["exact"]
    assert_same_bits(fastrnn.load_tensors(tmp_path / "f"), given)


def test_compact_tensors_are_aligned(tmp_path):
    """the widest as they are written come first"""
    given = {"a": np.ones(3, np.float32), "b": random(3), "c": np.ones(1)}
    given["d"] = np.ones(5, np.float16)
    fastrnn.save_tensors(tmp_path / "f", given, compact=True)
    size = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    for entry in header_of(tmp_path / "f").values():
        assert entry["data_offsets"][0] % size[entry["dtype"]] == 0, entry
