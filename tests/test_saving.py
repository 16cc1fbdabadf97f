"""Weights on disk: save, load, load_tensors, and files that are not what they should be."""

import json
import math
import os
import stat
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import _safetensors
from support import DTYPES, KINDS, assert_same_bits, net_of, problem, run

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(params=["package", "plain"])
def reader(request, monkeypatch):
    """with the safetensors package and without it"""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "safetensors", None)
    else:
        pytest.importorskip("safetensors")
    assert _safetensors._package() == (request.param == "package")
    return request.param


def header_of(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def assemble(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


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
    assert repr(again) == repr(layer)
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


def test_a_file_of_other_origin(reader, tmp_path):
    layer = fastrnn.RNN(2, 3)
    _safetensors.write(tmp_path / "bare", layer.state_dict(), {})
    with pytest.raises(ValueError, match=r"bare: .*no architecture.*load_tensors"):
        fastrnn.load(tmp_path / "bare")
    again = fastrnn.RNN(2, 3)
    again.load_state_dict(fastrnn.load_tensors(tmp_path / "bare"))
    assert_same_bits(again.state_dict(), layer.state_dict())


def test_other_dtypes_beside_ours(reader, tmp_path):
    """a file of other origin may hold what we cannot read, as long as nobody asks for it"""
    body = np.float32([1, 2]).tobytes() + b"\x00" * 4
    header = {"a.x": entry(), "b.x": entry("BF16", (2,), (8, 12))}
    (tmp_path / "f").write_bytes(assemble(header, body))
    assert fastrnn.load_tensors(tmp_path / "f", "a.")["x"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"'b.x': expected dtype F32 or F64, got BF16"):
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


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    old, new = fastrnn.Linear(3, 2, seed=1), fastrnn.Linear(3, 2, seed=2)
    old.save(tmp_path / "f")

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space"):
                new.save(tmp_path / "f")
        assert [p.name for p in tmp_path.iterdir()] == ["f"], "no temporary file stays"
        assert_same_bits(fastrnn.load(tmp_path / "f").state_dict(), old.state_dict())
    with pytest.raises(OSError):
        new.save(tmp_path / "nowhere" / "f")


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_links_and_modes(tmp_path):
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fastrnn.Linear(1, 1).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").stat().st_size
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o666 & ~mask


# damaged files

HUGE = 2**62
DAMAGED = {
    "empty": (b"", "at least 8 bytes, got 0"),
    "seven bytes": (b"1234567", "at least 8 bytes, got 7"),
    "huge header": (b"\xff" * 16, "at most 100000000 bytes"),
    "header beyond the end": (assemble({})[:-1], "within the 1 bytes"),
    "empty header": (assemble(b""), r"starts with '\{'"),
    "blank first": (assemble(b" {}"), r"starts with '\{'"),
    "a list": (assemble(b"[]"), r"starts with '\{'"),
    "bad JSON": (assemble(b'{"a":'), "no JSON"),
    "two values": (assemble(b"{}{}"), "no JSON"),
    "not UTF-8": (assemble(b'{"\xff":1}'), "no JSON"),
    "half a surrogate pair": (assemble(b'{"\\ud800":1}'), "no JSON"),
    "deep": (assemble(b'{"a":' + b"[" * 100_000), "no JSON"),
    "long number": (assemble(b'{"a":' + b"9" * 100_000 + b"}"), "no JSON|expected dtype"),
    "NaN": (assemble(b'{"a":NaN}'), "NaN is no JSON"),
    "duplicate": (assemble(b'{"a":1,"a":2}'), "'a' occurs twice"),
    "duplicate inside": (assemble(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "'dtype' occurs twice"),
    "metadata is a list": (assemble({"__metadata__": []}), "__metadata__: expected a dict"),
    "metadata of numbers": (assemble({"__metadata__": {"a": 1}}), r"__metadata__\['a'\]: expected"),
    "no dict": (assemble({"a": 1}), "'a': expected dtype, shape and data_offsets, got 1"),
    "a field missing": (assemble({"a": {"dtype": "F32"}}), "'a': expected dtype, shape"),
    "a field too many": (assemble({"a": entry() | {"b": 1}}, b"8" * 8), "'a': expected dtype"),
    "unknown dtype": (assemble({"a": entry("F99")}, b"8" * 8), "'a': expected a dtype.*'F99'"),
    "dtype is a number": (assemble({"a": entry(3)}, b"8" * 8), "'a': expected a dtype"),
    "negative size": (assemble({"a": entry(shape=(-2, -1))}, b"8" * 8), "'a': expected a shape"),
    "size is a float": (assemble({"a": entry(shape=(2.0,))}, b"8" * 8), "'a': expected a shape"),
    "size is true": (assemble({"a": entry(shape=(2, True))}, b"8" * 8), "'a': expected a shape"),
    "many axes": (assemble({"a": entry(shape=(2, *[1] * 99))}, b"8" * 8), "at most 32 sizes"),
    "overflow": (
        assemble({"a": entry(shape=(HUGE, HUGE, 4), offsets=(0, 0))}), "'a': expected at most"),
    "overflow beside a zero": (
        assemble({"a": entry(shape=(0, HUGE, HUGE), offsets=(0, 0))}), "'a': expected at most"),
    "three offsets": (assemble({"a": entry(offsets=(0, 8, 8))}, b"8" * 8), "data_offsets"),
    "backwards": (assemble({"a": entry(offsets=(8, 0))}, b"8" * 8), "data_offsets"),
    "negative offset": (assemble({"a": entry(offsets=(-8, 0))}, b"8" * 8), "data_offsets"),
    "too few bytes": (assemble({"a": entry(offsets=(0, 4))}, b"4" * 4), "expected 8 bytes.*got 4"),
    "wrong dtype": (assemble({"a": entry("F64")}, b"8" * 8), "expected 16 bytes.*got 8"),
    "truncated": (assemble({"a": entry()}, b"8" * 7), "truncated: expected 8 bytes.*got 7"),
    "bytes left over": (assemble({"a": entry()}, b"8" * 9), "1 belong to none"),
    "overlap": (
        assemble({"a": entry(), "b": entry(offsets=(4, 12))}, b"8" * 12), "'b' overlaps"),
    "the same twice": (assemble({"a": entry(), "b": entry()}, b"8" * 8), "'b' overlaps"),
    "hole": (
        assemble({"a": entry(), "b": entry(offsets=(12, 20))}, b"8" * 20), "'b' leaves a hole"),
    "hole at the start": (assemble({"a": entry(offsets=(4, 12))}, b"8" * 12), "'a' leaves a hole"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged(case, reader, tmp_path):
    data, message = DAMAGED[case]
    path = tmp_path / "file"
    path.write_bytes(data)
    for work in (fastrnn.load, fastrnn.load_tensors):
        with pytest.raises(ValueError, match=f"file: not a valid safetensors file: .*{message}"):
            work(path)


def saved(tmp_path, edit):
    """a file whose metadata and tensors went through edit"""
    path = tmp_path / "file"
    layer = fastrnn.LSTM(3, 4, num_layers=2, proj_size=2)
    metadata = {"format": "fastrnn", "format_version": "1"} | layer._architecture()
    tensors = layer.state_dict()
    edit(metadata, tensors)
    _safetensors.write(path, tensors, metadata)
    return path


WRONG = {
    "format": ("torch", "no architecture"),
    "format_version": ("2", "format_version: expected '1', got '2'"),
    "cell": ("mgu", "cell: expected one of .*'lstm'.*got 'mgu'"),
    "input_size": ("5", r"weight_ih_l0: expected shape \[16, 5\], got \[16, 3\]"),
    "hidden_size": ("4.0", "hidden_size: expected an integer from 1 to 1048576, got '4.0'"),
    "num_layers": ("1048576", "num_layers: expected weights of 1048576 layers"),
    "proj_size": ("4", "proj_size: expected 0, or for an lstm less"),
    "bias": ("True", "bias: expected 'true' or 'false', got 'True'"),
    "batch_first": ("", "batch_first: expected 'true' or 'false'"),
    "bidirectional": ("true", "tensors missing: .*_reverse"),
    "dropout": ("nan", r"dropout: expected a number in \[0, 1\], got 'nan'"),
}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_architecture(field, reader, tmp_path):
    value, message = WRONG[field]
    with pytest.raises(ValueError, match=message):
        fastrnn.load(saved(tmp_path, lambda m, _: m.update({field: value})))
    with pytest.raises(ValueError, match=field if field != "format" else "no architecture"):
        fastrnn.load(saved(tmp_path, lambda m, _: m.pop(field)))


@pytest.mark.parametrize(
    "value", ["0", "-1", "+4", " 4", "4 ", "1e3", "0x4", "४", "9" * 5000, "1048577", ""]
)
def test_sizes_that_are_none(value, tmp_path):
    with pytest.raises(ValueError, match="hidden_size: expected an integer"):
        fastrnn.load(saved(tmp_path, lambda m, _: m.update(hidden_size=value)))


@pytest.mark.parametrize("value", ["-0.1", "1.1", "inf", "1e999", "1" * 99, "", "0x1p-1", "1_0"])
def test_dropouts_that_are_none(value, tmp_path):
    with pytest.raises(ValueError, match="dropout: expected a number"):
        fastrnn.load(saved(tmp_path, lambda m, _: m.update(dropout=value)))


def test_tensors_that_do_not_fit(reader, tmp_path):
    def double(_, tensors):
        tensors["bias_ih_l0"] = tensors["bias_ih_l0"].astype(np.float64)

    def stray(_, tensors):
        tensors["elsewhere.weight"] = np.zeros(1, np.float32)

    for edit, message in (
        (lambda _, t: t.pop("weight_hr_l1"), r"missing: \['weight_hr_l1'\], unexpected: \[\]"),
        (lambda _, t: t.update(extra=np.zeros(1, np.float32)), r"unexpected: \['extra'\]"),
        (lambda _, t: t.clear(), "expected tensors of one dtype, F32 or F64, got no tensor"),
        (double, "expected tensors of one dtype, F32 or F64, got F32, F64"),
        (stray, "'elsewhere.weight': expected a tensor of a module"),
        (lambda m, _: m.update({"other.cell": "linear"}), "one module without a name, or several"),
    ):
        with pytest.raises(ValueError, match=message):
            fastrnn.load(saved(tmp_path, edit))


def test_no_file(tmp_path):
    for work in (fastrnn.load, fastrnn.load_tensors):
        with pytest.raises(FileNotFoundError):
            work(tmp_path / "nothing")
    with pytest.raises(TypeError, match="^prefix: expected a string"):
        fastrnn.load_tensors(tmp_path / "nothing", 3)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "file"
    fastrnn.save(path, {"a": fastrnn.GRU(2, 3, seed=1), "b": fastrnn.Linear(3, 1, seed=1)})
    return path.read_bytes()


@settings(max_examples=500)
@given(data=st.data())
def test_fuzz(whole_file, tmp_path, data):
    """any change of a file is a ValueError or another file; nothing else is raised"""
    good = bytearray(whole_file)
    length = int.from_bytes(good[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["cut", "byte", "digit", "insert", "length"]))
        at = data.draw(st.integers(0, len(good) - 1)) if good else 0
        if kind == "cut":
            del good[at:]
        elif kind == "byte" and good:
            good[at] = data.draw(st.integers(0, 255))
        elif kind == "digit":
            places = [i for i in range(8, min(8 + length, len(good))) if 48 <= good[i] < 58]
            if places:
                good[data.draw(st.sampled_from(places))] = data.draw(st.integers(48, 57))
        elif kind == "insert":
            good[at:at] = data.draw(st.binary(max_size=9))
        elif len(good) >= 8:
            good[:8] = data.draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
    path = tmp_path / "file"
    path.write_bytes(good)
    for work in (fastrnn.load, fastrnn.load_tensors):
        try:
            found = work(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert isinstance(found, dict)


def test_a_file_of_two_gigabytes_is_sparse(reader, tmp_path):
    """sizes beyond 32 bits; the file system stores the zeros as a hole"""
    size = 2**31 + 64
    path = tmp_path / "large"
    head = assemble({"a": entry(shape=(size // 4,), offsets=(0, size)),
                     "b": entry(shape=(1,), offsets=(size, size + 4))})  # fmt: skip
    with open(path, "wb") as file:
        file.write(head)
        file.seek(size, os.SEEK_CUR)
        file.write(np.float32(7).tobytes())
    assert fastrnn.load_tensors(path, "b")[""].tolist() == [7]
    assert math.prod(_safetensors.read_header(path).tensors["a"].shape) == size // 4
