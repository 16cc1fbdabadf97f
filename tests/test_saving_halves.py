"""Weights at half the size: every value of F16 and BF16 becomes the float32 that it is."""

import math
import struct

import numpy as np
import pytest

import fastrnn
from fastrnn import _safetensors
from support import assert_same_bits
from weight_files import assemble, entry, header_of

ALL = np.arange(2**16, dtype="<u2")  # the bits of every half


def bfloat16(bits):
    """8 bits of exponent, 7 of fraction"""
    sign, exponent, fraction = (-1) ** (bits >> 15), bits >> 7 & 255, bits & 127
    if exponent == 255:
        return math.nan if fraction else sign * math.inf
    return sign * math.ldexp(fraction + 128 * (exponent > 0), max(exponent, 1) - 127 - 7)


VALUE = {"F16": lambda bits: struct.unpack("<e", struct.pack("<H", bits))[0], "BF16": bfloat16}


@pytest.mark.parametrize("dtype", VALUE)
def test_every_value(dtype, reader, tmp_path):
    header = {"a": entry(dtype, (256, 256), (0, 2 * ALL.size))}
    (tmp_path / "f").write_bytes(assemble(header, ALL.tobytes()))
    got = fastrnn.load_tensors(tmp_path / "f")["a"]
    expected = np.array([VALUE[dtype](int(bits)) for bits in ALL]).reshape(256, 256)
    assert got.dtype == np.float32 and got.flags.writeable and got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


def halved(path, dtype, *left):
    """the file at `path`, with its float32 tensors cut to `dtype`, all but those in `left`"""
    tensors = fastrnn.load_tensors(path)
    header, body = {"__metadata__": header_of(path)["__metadata__"]}, b""
    for name, array in tensors.items():
        upper = (array.view(np.uint32) >> 16).astype("<u2")
        half = upper if dtype == "BF16" else array.astype("<f2")
        part = (array if name in left else half).tobytes()
        kind = "F32" if name in left else dtype
        header[name] = entry(kind, array.shape, (len(body), len(body) + len(part)))
        body += part
    path.write_bytes(assemble(header, body))


@pytest.mark.parametrize("left", [(), ("lstm.bias_ih_l0", "head.bias")])
@pytest.mark.parametrize("dtype", VALUE)
def test_modules(dtype, left, reader, tmp_path):
    lstm, head = fastrnn.LSTM(3, 4, seed=0), fastrnn.Linear(4, 2)
    fastrnn.save(tmp_path / "f", {"lstm": lstm, "head": head})
    halved(tmp_path / "f", dtype, *left)
    again = fastrnn.load(tmp_path / "f")
    tensors = fastrnn.load_tensors(tmp_path / "f")
    for name, module in again.items():
        mine = {key: tensors[f"{name}.{key}"] for key in module.state_dict()}
        assert_same_bits(module.state_dict(), mine)
    x = np.ones((5, 1, 3), np.float32)
    assert again["head"](again["lstm"](x)[0]).dtype == np.float32
    assert np.abs(again["lstm"](x)[0] - lstm(x)[0]).max() < 2e-2


def test_float64_is_not_mixed_with_halves(reader, tmp_path):
    layer = fastrnn.GRU(2, 3, dtype=np.float64)
    layer.save(tmp_path / "f")
    header = header_of(tmp_path / "f")
    body = np.zeros(2 * 3 * 3, "<u2").tobytes()
    names = [name for name in header if name != "__metadata__"]
    start = 0
    for name in names:
        size = 8 * math.prod(header[name]["shape"])
        header[name]["data_offsets"] = [start, start + size]
        start += size
    header["extra"] = entry("BF16", (2, 9), (start, start + len(body)))
    (tmp_path / "f").write_bytes(assemble(header, bytes(start) + body))
    with pytest.raises(ValueError, match="of F64, or of F32, F16 and BF16, got BF16, F64"):
        fastrnn.load(tmp_path / "f")


def test_arrays_are_written_as_they_are(reader, tmp_path):
    half = ALL.view("<f2").reshape(256, 256)
    tensors = {
        "single": np.ones(3, np.float32),
        "half": half,
        "double": np.ones(3),
        "cut": half[3:, 1::2],
    }
    fastrnn.save_tensors(tmp_path / "f", tensors)
    header = header_of(tmp_path / "f")
    assert {k: e["dtype"] for k, e in header.items()} == {
        "double": "F64", "single": "F32", "half": "F16", "cut": "F16"
    }  # fmt: skip
    assert all(8 * e["data_offsets"][0] % int(e["dtype"][1:]) == 0 for e in header.values())
    assert (tmp_path / "f").read_bytes().endswith(half.tobytes() + half[3:, 1::2].tobytes())
    again = fastrnn.load_tensors(tmp_path / "f")
    wanted = {k: a.astype(np.float32) if a.itemsize == 2 else a for k, a in tensors.items()}
    assert {k: a.dtype for k, a in again.items()} == {k: a.dtype for k, a in wanted.items()}
    for name, array in wanted.items():
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(TypeError, match=r"expected dtype float16, got float16 in foreign byte ord"):
        fastrnn.save_tensors(tmp_path / "f", {"a": np.ones(2, ">f2")})


def test_a_model_at_half_its_size(reader, tmp_path):
    """as docs/api.md shows it"""
    layer = fastrnn.LSTM(30, 40, num_layers=2, seed=0)
    norm = {"weight": np.linspace(-1, 1, 40, dtype=np.float32)}
    fastrnn.save(tmp_path / "f", {"lstm": layer, "norm": norm}, {"note": "n"})
    small = {k: a.astype(np.float16) for k, a in fastrnn.load_tensors(tmp_path / "f").items()}
    fastrnn.save_tensors(tmp_path / "g", small, fastrnn.load_metadata(tmp_path / "f"))
    assert (tmp_path / "g").stat().st_size < 0.55 * (tmp_path / "f").stat().st_size
    again = fastrnn.load(tmp_path / "g")
    assert repr(again["lstm"]) == repr(layer)
    tensors = {k: a.astype(np.float32) for k, a in small.items()}
    found = {f"lstm.{k}": a for k, a in again["lstm"].state_dict().items()}
    assert_same_bits(found | {"norm.weight": again["norm"]["weight"]}, tensors)
    assert fastrnn.load_metadata(tmp_path / "g")["note"] == "n"


def test_beside_a_dtype_that_the_package_does_not_know(tmp_path, monkeypatch):
    """an older one refuses the whole file"""
    safetensors = pytest.importorskip("safetensors")

    def refuse(*_, **__):
        raise safetensors.SafetensorError("invalid header: unknown variant `F4`")

    header = {"a": entry(), "b": entry("F4", (4,), (8, 10))}
    (tmp_path / "f").write_bytes(assemble(header, np.float32([3, 4]).tobytes() + bytes(2)))
    monkeypatch.setattr(safetensors, "safe_open", refuse)
    assert fastrnn.load_tensors(tmp_path / "f", "a")[""].tolist() == [3, 4]


def test_modules_are_never_written_half(tmp_path):
    assert set(_safetensors.DTYPES) == {"F32", "F64"}
    layer = fastrnn.RNN(2, 3)
    layer.save(tmp_path / "f")
    halved(tmp_path / "f", "F16")
    fastrnn.load(tmp_path / "f").save(tmp_path / "g")
    header = header_of(tmp_path / "g")
    assert {e["dtype"] for name, e in header.items() if name != "__metadata__"} == {"F32"}
