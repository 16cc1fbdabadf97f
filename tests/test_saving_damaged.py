"""Weight files that are not what they should be."""

import math
import os
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import _safetensors, _safetensors_writer
from weight_files import assemble, entry

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
    "a byte too many beside a zero": (
        assemble({"a": entry(shape=(0, 2**61), offsets=(0, 0))}), "'a': expected at most"),
    "three offsets": (assemble({"a": entry(offsets=(0, 8, 8))}, b"8" * 8), "data_offsets"),
    "backwards": (
        assemble({"a": entry(offsets=(8, 0))}, b"8" * 8), r"'a': expected data_offsets.*\[8, 0\]"),
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


def test_the_largest_shape_of_nothing():
    header = {"a": entry(shape=(0, 2**61 - 1), offsets=(0, 0))}
    assert fastrnn.load_tensors(assemble(header))["a"].shape == (0, 2**61 - 1)


@pytest.mark.parametrize("dtype", [
    "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "U16", "I16", "F16", "BF16", "U32", "I32",
    "F32", "U64", "I64", "F64", "C64", "F4", "F6_E2M3", "F6_E3M2",
])  # fmt: skip
def test_dtypes_of_the_format(dtype):
    """what lies beside a tensor of another dtype is read; names tell how many bits a number has"""
    bits = 8 if dtype == "BOOL" else int(re.match("[A-Z]+([0-9]+)", dtype)[1])
    header = {"a": entry(dtype, (8,), (0, bits)), "b": entry(offsets=(bits, bits + 8))}
    content = assemble(header, bytes(bits) + np.float32([3, 4]).tobytes())
    assert fastrnn.load_tensors(content, "b")[""].tolist() == [3, 4]
    header = {"a": entry(dtype, (7,), (0, bits))}
    with pytest.raises(ValueError, match=rf"expected {7 * bits / 8:g} bytes \({dtype} of shape"):
        fastrnn.load_tensors(assemble(header, bytes(bits)))


def saved(tmp_path, edit):
    """a file whose metadata and tensors went through edit"""
    path = tmp_path / "file"
    layer = fastrnn.LSTM(3, 4, num_layers=2, proj_size=2)
    metadata = {"format": "fastrnn", "format_version": "1"} | layer._architecture()
    tensors = layer.state_dict()
    edit(metadata, tensors)
    _safetensors_writer.write(path, tensors, metadata)
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
def test_invalid_sizes(value, tmp_path):
    with pytest.raises(ValueError, match="hidden_size: expected an integer"):
        fastrnn.load(saved(tmp_path, lambda m, _: m.update(hidden_size=value)))


@pytest.mark.parametrize("name", ["in_features", "out_features"])
@pytest.mark.parametrize("value", ["0", "1048577"])
def test_features_that_the_constructor_refuses(name, value):
    fields = {"cell": "linear", "in_features": "1", "out_features": "1", "bias": "false"}
    shape = [int(value) if n == name else 1 for n in ("out_features", "in_features")]
    body = bytes(4 * shape[0] * shape[1])
    metadata = {"format": "fastrnn", "format_version": "1"} | fields | {name: value}
    header = {"__metadata__": metadata, "weight": entry("F32", shape, (0, len(body)))}
    with pytest.raises(ValueError, match=f"{name}: expected an integer from 1 to 1048576, got"):
        fastrnn.load(assemble(header, body))


@pytest.mark.parametrize("value", ["-0.1", "1.1", "inf", "1e999", "1" * 99, "", "0x1p-1", "1_0"])
def test_invalid_dropouts(value, tmp_path):
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
        (lambda _, t: t.clear(), "expected tensors of F64, or of F32, F16 and BF16, got no tensor"),
        (double, "expected tensors of F64, or of F32, F16 and BF16, got F32, F64"),
        (stray, r"unexpected: \['elsewhere.weight'\]"),
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
    own = {"a": np.ones(3, np.float32), "x.a": np.ones(2), "half": np.ones((2, 2), np.float16)}
    model = {"a": fastrnn.GRU(2, 3, seed=1), "b": fastrnn.Linear(3, 1, seed=1), "own": own}
    fastrnn.save(path, model, {"note": "n"})
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


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_another_file_in_its_place(dtype, reader, tmp_path):
    """between reading the header and the tensors, as when a training saves while somebody loads"""
    size = 4 if dtype == "F32" else 2
    for name, values in (("f", 4), ("other", 8)):
        header = {"a": entry(dtype, (values,), (0, values * size))}
        (tmp_path / name).write_bytes(assemble(header, bytes(values * size)))
    header = _safetensors.read_header(tmp_path / "f")
    assert _safetensors.read_tensors(header, header.tensors)["a"].shape == (4,)
    os.replace(tmp_path / "other", tmp_path / "f")
    with pytest.raises(ValueError, match=r"f: changed while it was read$"):
        _safetensors.read_tensors(header, header.tensors)


def test_a_file_that_is_cut_while_its_header_is_read(tmp_path, monkeypatch):
    whole = assemble({"a": entry()}, bytes(8))
    (tmp_path / "f").write_bytes(whole[:20])
    monkeypatch.setattr(_safetensors, "_stamp", lambda _: (len(whole),))
    with pytest.raises(
        ValueError, match=rf"f: .* expected {len(whole) - 16} bytes of header, got 12"
    ):
        fastrnn.load_tensors(tmp_path / "f")


def test_a_file_that_is_cut_while_its_tensors_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setattr(_safetensors, "_check_same", lambda *_: None)  # it was whole then
    (tmp_path / "f").write_bytes(assemble({"a": entry()}, bytes(8)))
    header = _safetensors.read_header(tmp_path / "f")
    os.truncate(tmp_path / "f", header.start + 7)
    with pytest.raises(ValueError, match="f: 'a': the file ends in its middle"):
        _safetensors.read_tensors(header, header.tensors)


def test_bytes_are_told_to_the_last(tmp_path):
    header = {"a": entry("F16", (1024, 1024), (0, 2097150))}
    (tmp_path / "f").write_bytes(assemble(header, bytes(2097150)))
    with pytest.raises(ValueError, match=r"expected 2097152 bytes \(F16 of .* got 2097150"):
        fastrnn.load_tensors(tmp_path / "f")


@pytest.mark.parametrize("tensors", [{}, {"weight": np.ones((1, 1), np.float32)}])
def test_metadata_of_no_module(tensors, tmp_path):
    fastrnn.save_tensors(tmp_path / "f", tensors, _safetensors_writer.FORMAT)
    with pytest.raises(ValueError, match="f: expected at least one module in the metadata, got no"):
        fastrnn.load(tmp_path / "f")
