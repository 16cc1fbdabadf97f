"""Weights on disk: save, load, load_tensors."""

import sys
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn import _safetensors_writer
from support import DTYPES, KINDS, assert_same_bits, net_of, problem, run
from weight_files import assemble, entry, header_of

each_kind = pytest.mark.parametrize("kind", KINDS)


# what is saved is what is loaded


@pytest.mark.parametrize("dtype", DTYPES)
@each_kind
def test_round_trip(kind, dtype, reader, tmp_path):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = net.build(batch_first=False, dropout=0.25)
        layer.save(tmp_path / "layer")
        again = fastrnn.load(tmp_path / "layer")
    assert type(again) is type(layer) and repr(again) == repr(layer)
    assert list(again.state_dict()) == list(layer.state_dict())
    assert_same_bits(again.state_dict(), layer.state_dict())
    p = problem(net, 4, 3, lengths="ragged")
    assert_same_bits(run(again.eval(), p), run(layer.eval(), p))
    with again.edit() as weights:  # the arrays are the layer's own
        weights["weight_hh_l0"] *= 2
    assert again.training is False and fastrnn.load(tmp_path / "layer").training is True


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"batch_first": True}])
def test_options(options, reader, tmp_path):
    layer = fastrnn.RNN(3, 4, nonlinearity="relu", **options)
    layer.save(str(tmp_path / "layer"))
    assert repr(fastrnn.load(str(tmp_path / "layer"))) == repr(layer)


def test_dropout_of_one_layer_warns_once(tmp_path):
    with pytest.warns(UserWarning, match="dropout"):
        layer = fastrnn.GRU(3, 4, dropout=0.5)
    layer.save(tmp_path / "layer")
    assert fastrnn.load(tmp_path / "layer").dropout == 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias, dtype, reader, tmp_path):
    layer = fastrnn.Linear(5, 3, bias, dtype=dtype)
    layer.save(tmp_path / "layer")
    again = fastrnn.load(tmp_path / "layer")
    assert repr(again) == repr(layer) and again.num_threads is None
    assert_same_bits(again.state_dict(), layer.state_dict())


def test_every_bit_pattern_survives(reader, tmp_path):
    layer = fastrnn.Linear(4, 1, bias=False)
    bits = np.array([[0x7FC12345, 0x80000000, 0x00000001, 0xFF800000]], np.uint32)
    layer.load_state_dict({"weight": bits.view(np.float32)})
    layer.save(tmp_path / "layer")
    assert fastrnn.load(tmp_path / "layer").state_dict()["weight"].tobytes() == bits.tobytes()


def test_several_modules(reader, tmp_path):
    modules = {
        "lstm": fastrnn.LSTM(3, 4),
        "encoder.gru": fastrnn.GRU(3, 5, dtype=np.float64, bidirectional=True),
        "head": fastrnn.Linear(4, 2),
    }
    fastrnn.save(tmp_path / "model", modules)
    again = fastrnn.load(tmp_path / "model")
    assert list(again) == list(modules)
    for name, module in modules.items():
        assert repr(again[name]) == repr(module)
        assert_same_bits(again[name].state_dict(), module.state_dict())
        part = fastrnn.load_tensors(tmp_path / "model", name + ".")
        assert_same_bits(part, module.state_dict())
    tensors = fastrnn.load_tensors(tmp_path / "model")
    assert len(tensors) == 4 + 8 + 2 and "encoder.gru.weight_ih_l0_reverse" in tensors


def test_a_file_without_tensors(tmp_path):
    _safetensors_writer.write(tmp_path / "empty", {}, {})
    assert fastrnn.load_tensors(tmp_path / "empty") == {}
    with pytest.raises(ValueError, match=r"^prefix: expected the start .*, got 'lstm\.'"):
        fastrnn.load_tensors(tmp_path / "empty", "lstm.")


def test_the_file(tmp_path):
    """as the format was agreed on, so that other readers find what they need"""
    layer = fastrnn.LSTM(3, 4, proj_size=2, dropout=0.0)
    layer.save(tmp_path / "layer")
    header = header_of(tmp_path / "layer")
    assert header.pop("__metadata__") == {
        "format": "fastrnn", "format_version": "1", "cell": "lstm", "input_size": "3",
        "hidden_size": "4", "num_layers": "1", "proj_size": "2", "bias": "true",
        "batch_first": "false", "bidirectional": "false", "dropout": "0.0",
    }  # fmt: skip
    assert list(header) == list(layer.state_dict())
    assert header["weight_hr_l0"]["shape"] == [2, 4]
    assert int.from_bytes((tmp_path / "layer").read_bytes()[:8], "little") % 8 == 0


def test_the_same_bytes_each_time_and_for_the_package(tmp_path):
    layer = fastrnn.GRU(3, 4, seed=1)
    for name in "ab":
        layer.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    numpy = pytest.importorskip("safetensors.numpy")
    assert_same_bits(numpy.load_file(tmp_path / "a"), layer.state_dict())
    numpy.save_file(layer.state_dict(), tmp_path / "theirs")
    assert_same_bits(fastrnn.load_tensors(tmp_path / "theirs"), layer.state_dict())


def test_every_tensor_is_aligned(tmp_path):
    modules = {"a": fastrnn.Linear(1, 1), "b": fastrnn.Linear(3, 1, dtype=np.float64)}
    fastrnn.save(tmp_path / "model", modules)
    header = header_of(tmp_path / "model")
    assert all(header[name]["data_offsets"][0] % 8 == 0 for name in ("b.weight", "b.bias"))
    for length in range(8):  # of the header, before it is padded
        fastrnn.save(tmp_path / "model", {length * "a" + "b": modules["b"]})
        assert int.from_bytes((tmp_path / "model").read_bytes()[:8], "little") % 8 == 0


def test_as_many_axes_as_numpy_has(tmp_path):
    _safetensors_writer.write(tmp_path / "deep", {"x": np.ones(32 * (1,), np.float32)}, {})
    assert fastrnn.load_tensors(tmp_path / "deep")["x"].shape == 32 * (1,)


def test_a_file_of_other_origin(reader, tmp_path):
    layer = fastrnn.RNN(2, 3)
    _safetensors_writer.write(tmp_path / "bare", layer.state_dict(), {})
    with pytest.raises(ValueError, match=r"bare: .*no architecture.*load_tensors"):
        fastrnn.load(tmp_path / "bare")
    again = fastrnn.RNN(2, 3)
    again.load_state_dict(fastrnn.load_tensors(tmp_path / "bare"))
    assert_same_bits(again.state_dict(), layer.state_dict())


def test_other_dtypes_beside_ours(reader, tmp_path):
    """a file of other origin may hold what we cannot read, as long as nobody asks for it"""
    body = np.float32([1, 2]).tobytes() + b"\x00" * 4
    header = {"a.x": entry(), "b.x": entry("I16", (2,), (8, 12))}
    (tmp_path / "f").write_bytes(assemble(header, body))
    assert fastrnn.load_tensors(tmp_path / "f", "a.")["x"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"'b.x': expected dtype F32, F64, F16, BF16, got I16"):
        fastrnn.load_tensors(tmp_path / "f")
    with pytest.raises(ValueError, match=r"^prefix: expected.*got 'c'"):
        fastrnn.load_tensors(tmp_path / "f", "c")


def test_scalars_and_empty_tensors(reader, tmp_path):
    header = {"s": entry(shape=(), offsets=(0, 4)), "e": entry(shape=(0, 3), offsets=(4, 4))}
    (tmp_path / "f").write_bytes(assemble(header, np.float32(3).tobytes()))
    found = fastrnn.load_tensors(tmp_path / "f")
    assert found["s"].shape == () and found["s"] == 3 and found["e"].shape == (0, 3)


def test_memory_is_not_doubled(tmp_path, monkeypatch):
    """loading takes the weights once; numpy reports to tracemalloc"""
    import tracemalloc

    monkeypatch.setitem(sys.modules, "safetensors", None)
    layer = fastrnn.LSTM(512, 512)
    size = sum(w.nbytes for w in layer.state_dict().values())
    layer.save(tmp_path / "layer")
    del layer
    for work in (fastrnn.load, fastrnn.load_tensors):
        tracemalloc.start()
        try:
            kept = work(tmp_path / "layer")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept is not None and peak < 1.05 * size + 100_000


# writing


@pytest.mark.parametrize(
    ("modules", "error"),
    [
        ({}, ValueError),
        ({"": fastrnn.Linear(1, 1)}, ValueError),
        ([fastrnn.Linear(1, 1)], TypeError),
        ({"a": np.zeros(3)}, TypeError),
        ({1: fastrnn.Linear(1, 1)}, TypeError),
    ],
)
def test_modules_are_checked(modules, error, tmp_path):
    with pytest.raises(error, match="^modules: expected"):
        fastrnn.save(tmp_path / "model", modules)
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_text(tmp_path):
    with pytest.raises(ValueError, match=r"^modules: expected names of text, got 'a\\ud800'"):
        fastrnn.save(tmp_path / "m", {"a\ud800": fastrnn.Linear(1, 1)})
    assert not list(tmp_path.iterdir())


def test_a_header_nobody_could_read(tmp_path, monkeypatch):
    layer = fastrnn.Linear(2, 2)
    monkeypatch.setattr(_safetensors_writer, "MOST_HEADER", 64)
    with pytest.raises(ValueError, match="^modules: expected names that fit a header of 64 bytes"):
        layer.save(tmp_path / "f")
    assert not list(tmp_path.iterdir())


# files in memory


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_content_instead_of_a_path(kind, reader, tmp_path):
    lstm, head = fastrnn.LSTM(3, 4, num_layers=2), fastrnn.Linear(4, 2, dtype=np.float64)
    fastrnn.save(tmp_path / "model", {"lstm": lstm, "head": head})
    content = kind((tmp_path / "model").read_bytes())
    again = fastrnn.load(content)
    assert repr(again["lstm"]) == repr(lstm)
    assert_same_bits(again["lstm"].state_dict(), lstm.state_dict())
    assert_same_bits(again["head"].state_dict(), head.state_dict())
    assert_same_bits(fastrnn.load_tensors(content, "head."), head.state_dict())
    with again["head"].edit() as weights:  # arrays of the layer's own
        weights["weight"] *= 2
    assert_same_bits(fastrnn.load(content)["head"].state_dict(), head.state_dict())


def test_damaged_content_is_named():
    invalid = "<bytes>: not a valid safetensors file: expected "
    with pytest.raises(ValueError, match=invalid + "at least 8 bytes, got 5"):
        fastrnn.load(b"short")
    with pytest.raises(ValueError, match=invalid + "a header of at most"):
        fastrnn.load_tensors(bytes(range(1, 100)))
