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


def test_what_is_written_is_never_half(tmp_path):
    assert set(_safetensors.DTYPES) == {"F32", "F64"}
    layer = fastrnn.RNN(2, 3)
    layer.save(tmp_path / "f")
    halved(tmp_path / "f", "F16")
    fastrnn.load(tmp_path / "f").save(tmp_path / "g")
    header = header_of(tmp_path / "g")
    assert {e["dtype"] for name, e in header.items() if name != "__metadata__"} == {"F32"}
