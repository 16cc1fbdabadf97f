"""The C library of the installed package, through ctypes: as another language would use it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char, c_char_p, c_int32, c_int64, c_size_t, c_ssize_t, c_void_p
from pathlib import Path

import numpy as np

import fastrnn

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")
DTYPES = (np.float32, np.float64)


class Error(ctypes.Structure):
    _fields_ = [("status", c_int32), ("message", c_char * 508)]


class Config(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("cell", c_int32), ("dtype", c_int32), ("input_size", c_int32),
        ("hidden_size", c_int32), ("num_layers", c_int32), ("bias", c_int32),
        ("bidirectional", c_int32), ("proj_size", c_int32),
    ]  # fmt: skip


class Sequence(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("steps", c_int64), ("batch", c_int64), ("lengths", c_void_p),
        ("x", c_void_p), ("x_step", c_ssize_t), ("x_row", c_ssize_t),
        ("y", c_void_p), ("y_step", c_ssize_t), ("y_row", c_ssize_t),
        ("h0", c_void_p), ("c0", c_void_p), ("hn", c_void_p), ("cn", c_void_p),
        ("threads", c_int32),
    ]  # fmt: skip


class Gradients(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("dy", c_void_p), ("dy_step", c_ssize_t), ("dy_row", c_ssize_t),
        ("dhn", c_void_p), ("dcn", c_void_p),
        ("dx", c_void_p), ("dx_step", c_ssize_t), ("dx_row", c_ssize_t),
        ("dh0", c_void_p), ("dc0", c_void_p), ("weights", POINTER(c_void_p)), ("threads", c_int32),
        ("step_norms", c_void_p),
    ]  # fmt: skip


class Entry(ctypes.Structure):
    _fields_ = [("key", c_char_p), ("value", c_char_p)]


class Module(ctypes.Structure):
    _fields_ = [
        ("prefix", c_char_p), ("layer", c_void_p), ("linear", c_void_p),
        ("metadata", POINTER(Entry)), ("entries", c_size_t),
    ]  # fmt: skip


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p), ("dtype", c_char_p), ("data", c_void_p), ("bytes", c_size_t),
        ("shape", POINTER(c_int64)), ("rank", c_int32),
    ]  # fmt: skip


def path() -> Path:
    package = Path(fastrnn.__file__).parent
    names = ("lib/libfastrnn.so", "lib/libfastrnn.dylib", "bin/fastrnn.dll", "bin/libfastrnn.dll")
    return next(package / name for name in names if (package / name).exists())


LIBRARY = ctypes.CDLL(str(path()))
LIBRARY.fastrnn_isa.restype = LIBRARY.fastrnn_weights_metadata.restype = c_char_p


def call(name: str, *arguments: object) -> None:
    """Raises ValueError with the library's message."""
    error = Error()
    if getattr(LIBRARY, name)(*arguments, byref(error)) != 0:
        raise ValueError(error.message.decode())


def address(array: np.ndarray | None) -> c_void_p:
    return c_void_p(None if array is None else array.ctypes.data)


class Layer:
    """The C layer with the architecture and the weights of a Python one, or from a file."""

    def __init__(self, like: fastrnn.LSTM | fastrnn.GRU | fastrnn.RNN, cell: str) -> None:
        self.handle, self.dtype = c_void_p(), np.dtype(like.dtype)
        config = Config()
        LIBRARY.fastrnn_config_default(byref(config))
        config.cell, config.dtype = CELLS.index(cell), DTYPES.index(self.dtype.type)
        config.input_size, config.hidden_size = like.input_size, like.hidden_size
        config.num_layers, config.bias = like.num_layers, like.bias
        config.bidirectional, config.proj_size = like.bidirectional, getattr(like, "proj_size", 0)
        call("fastrnn_layer_create", byref(config), byref(self.handle))
        self.weights = {name: np.ascontiguousarray(w) for name, w in like.state_dict().items()}
        for name, w in self.weights.items():
            call("fastrnn_layer_set", self.handle, name.encode(), address(w), c_size_t(w.size))
        call("fastrnn_layer_prepare", self.handle, 1)

    def sequence(self, x: np.ndarray, y: np.ndarray, lengths: np.ndarray | None) -> Sequence:
        steps, batch, inputs = x.shape
        s = Sequence(size=ctypes.sizeof(Sequence), steps=steps, batch=batch, threads=2)
        s.x, s.x_step, s.x_row = x.ctypes.data, batch * inputs, inputs
        s.y, s.y_step, s.y_row = y.ctypes.data, batch * y.shape[2], y.shape[2]
        s.lengths = None if lengths is None else lengths.ctypes.data
        return s

    def run(self, x: np.ndarray, width: int, lengths: np.ndarray | None = None) -> np.ndarray:
        y = np.empty((*x.shape[:2], width), self.dtype)
        call("fastrnn_layer_run", self.handle, byref(self.sequence(x, y, lengths)))
        return y

    def gradients(
        self, x: np.ndarray, dy: np.ndarray, lengths: np.ndarray | None, norms: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return those of x and of the weights; `norms` is filled, without it the call is that of
        a program that was built before there were any."""
        y, dx, tape = np.empty_like(dy), np.empty_like(x), c_void_p()
        sequence = self.sequence(x, y, lengths)
        call("fastrnn_layer_forward", self.handle, byref(sequence), byref(tape))
        weights = {name: np.empty_like(w) for name, w in self.weights.items()}
        pointers = (c_void_p * len(weights))(*(w.ctypes.data for w in weights.values()))
        g = Gradients(size=ctypes.sizeof(Gradients), weights=pointers, threads=2)
        if norms is None:
            g.size, g.step_norms = Gradients.step_norms.offset, 1  # which nobody may look at
        else:
            g.step_norms = norms.ctypes.data
        g.dy, g.dy_step, g.dy_row = dy.ctypes.data, sequence.y_step, sequence.y_row
        g.dx, g.dx_step, g.dx_row = dx.ctypes.data, sequence.x_step, sequence.x_row
        call("fastrnn_layer_backward", self.handle, tape, byref(g))
        LIBRARY.fastrnn_tape_free(tape)
        return dx, weights

    def stream(self, x: np.ndarray, width: int) -> np.ndarray:
        steps, batch, _ = x.shape
        y, stream = np.empty((steps, batch, width), self.dtype), c_void_p()
        call("fastrnn_stream_create", self.handle, c_int64(batch), 1, byref(stream))
        for t in range(steps):
            assert LIBRARY.fastrnn_stream_step(stream, address(x[t]), address(y[t])) == 0
        LIBRARY.fastrnn_stream_free(stream)
        return y

    def pool(self, x: np.ndarray, width: int) -> np.ndarray:
        """A stream for each row, the last one first: a step, then all that is left."""
        steps, batch, inputs = x.shape
        y, pool = np.empty((steps, batch, width), self.dtype), c_void_p()
        call("fastrnn_pool_create", self.handle, c_int64(batch), 1, byref(pool))
        ids = (c_int64 * batch)()
        for i in reversed(range(batch)):
            assert LIBRARY.fastrnn_pool_join(pool, byref(ids, i * ctypes.sizeof(c_int64))) == 0
        n = c_int64(batch)
        assert LIBRARY.fastrnn_pool_step(pool, ids, n, address(x), address(y)) == 0
        strides = [c_ssize_t(k) for k in (batch * inputs, inputs, batch * width, width)]
        left = c_int64(steps - 1), address(x[1:]), *strides[:2], address(y[1:]), *strides[2:]
        assert LIBRARY.fastrnn_pool_process(pool, ids, n, *left) == 0
        LIBRARY.fastrnn_pool_free(pool)
        return y

    def module(self, about: dict[str, str]) -> Module:
        entries = (Entry * len(about))(*((k.encode(), v.encode()) for k, v in about.items()))
        return Module(b"", self.handle, None, entries, len(about))

    def save(self, file: Path, about: dict[str, str]) -> None:
        call("fastrnn_save", str(file).encode(), byref(self.module(about)), c_size_t(1))

    def serialize(self, about: dict[str, str]) -> bytes:
        size, module = c_size_t(), self.module(about)
        call("fastrnn_serialize", byref(module), c_size_t(1), None, c_size_t(0), byref(size))
        file = ctypes.create_string_buffer(size.value)
        call("fastrnn_serialize", byref(module), c_size_t(1), file, size, byref(size))
        return file.raw

    def __del__(self) -> None:
        LIBRARY.fastrnn_layer_free(self.handle)


@contextmanager
def opened(file: Path) -> Iterator[c_void_p]:
    weights = c_void_p()
    call("fastrnn_weights_open", str(file).encode(), byref(weights))
    try:
        yield weights
    finally:
        LIBRARY.fastrnn_weights_free(weights)


def load(file: Path, dtype: type, prefix: str = "") -> Layer:
    layer = Layer.__new__(Layer)
    layer.handle, layer.dtype = c_void_p(), np.dtype(dtype)
    which = prefix.encode(), DTYPES.index(dtype)
    with opened(file) as weights:
        call("fastrnn_layer_load", weights, *which, byref(layer.handle))
    return layer


def run_linear(file: Path, prefix: str, x: np.ndarray, width: int) -> np.ndarray:
    linear, y = c_void_p(), np.empty((*x.shape[:-1], width), x.dtype)
    which = prefix.encode(), DTYPES.index(x.dtype.type)
    with opened(file) as weights:
        call("fastrnn_linear_load", weights, *which, byref(linear))
    rows = c_int64(x.size // x.shape[-1])
    call("fastrnn_linear_run", linear, address(x), address(y), rows, 1)
    LIBRARY.fastrnn_linear_free(linear)
    return y


def find(file: Path, name: str) -> tuple[str, list[int], bytes]:
    """Return the dtype, the shape and the bytes of one tensor."""
    found = Tensor()
    with opened(file) as weights:
        call("fastrnn_weights_find", weights, name.encode(), byref(found))
        content = ctypes.string_at(found.data, found.bytes)
        return found.dtype.decode(), found.shape[: found.rank], content


def metadata(file: Path, key: str) -> str | None:
    with opened(file) as weights:
        value: bytes | None = LIBRARY.fastrnn_weights_metadata(weights, key.encode())
        return None if value is None else value.decode()
