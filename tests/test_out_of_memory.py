"""What is too large for any memory says how much it wanted."""

import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from test_process import python


@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize("lengths", [None, [1] * 1024])
def test_a_result(method, lengths):
    x = np.broadcast_to(np.zeros((1, 1, 1), np.float32), (2**31 - 1, 1024, 1))  # of 4 bytes
    with pytest.raises(
        MemoryError,
        match=r"^out of memory: expected 562949953159168 bytes for a result of shape "
        r"\[2147483647, 1024, 64\], float32$",
    ):
        getattr(fastrnn.GRU(1, 64), method)(x, lengths=lengths)


@pytest.mark.parametrize(
    "shape",
    [
        (2**30, 2**28, 64),  # 0 bytes, counted by 64 bits
        (2**30 + 1, 2**28 - 1, 65),
        (2**31 - 1, 2**28, 2**20, 2**20),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_bytes_than_can_be_counted(shape, dtype):
    with pytest.raises(MemoryError, match="^out of memory: expected [0-9]{20,} bytes"):
        _core.empty(shape, np.dtype(dtype))


LIMITED = """
import resource
import numpy as np
import fastrnn
lstm, linear = fastrnn.LSTM(1, 512, num_threads=1), fastrnn.Linear(1, 4096, num_threads=1)
x = np.zeros((200_000, 1, 1), np.float32)  # y takes 400 MB, the tape more than a gigabyte
linear(x[:1]), lstm(x[:1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
def refused(call, spare):
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
    try:
        call()
    except MemoryError as error:
        print(error)
refused(lambda: lstm(x), 200 << 20)
refused(lambda: linear(x), 200 << 20)
refused(lambda: lstm.forward(x), 900 << 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits its address space")
def test_calls_where_memory_ends():
    """a result that is made in C++, and a tape"""
    done = python("-c", LIMITED)
    assert done.returncode == 0, done.stderr
    y, of_linear, tape = done.stdout.splitlines()
    assert y == (
        "out of memory: expected 409600000 bytes for a result of shape [200000, 1, 512], float32"
    )
    assert of_linear.endswith("3276800000 bytes for a result of shape [200000, 1, 4096], float32")
    assert tape.startswith("out of memory: expected ") and tape.endswith(" bytes at once")
    assert int(tape.split()[4]) > 1 << 30
