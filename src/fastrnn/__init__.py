"""fastrnn: RNN, LSTM and GRU, forward and backward through time, on CPUs at full speed.

::

    lstm = fastrnn.LSTM(64, 128, num_layers=2)
    y, (h, c) = lstm(x)                             # x [T, B, 64] -> y [T, B, 128]
    y, (h, c), tape = lstm.forward(x)               # keeps what BPTT needs
    g = lstm.backward(tape, dy)                     # g.input, g.state, g.weights
    stream = lstm.stream()                          # memory carried from sample to sample
    y_t = stream.step(x_t)
    lstm.save("lstm.safetensors")                   # and fastrnn.load("lstm.safetensors")

Every sequence gives the same bits, whatever shares its batch, however it is cut into chunks or
steps, for any number of threads and on every instruction set with FMA.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import _core, convert, functional, losses, optim
from ._core import Stream, __version__
from ._explain import Explanation
from ._info import info
from ._linear import Linear
from ._saving import load, save
from ._stream import StreamPool
from ._tape import Gradients, Tape
from ._tensors import load_metadata, load_tensors, save_tensors
from ._threads import get_num_threads, set_num_threads
from .layers import GRU, LSTM, RNN

if not TYPE_CHECKING:  # for which every name would be one

    def __getattr__(name):
        """`fastrnn.torch` imports torch, which `import fastrnn` never does."""
        if name == "torch":
            return import_module(".torch", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


Stream.__module__ = __name__  # what type() and help show; unlike others it has no source to look up
_core.isa()  # a FASTRNN_ISA that cannot be used is an error now, not in the middle of things

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Explanation",
    "Gradients",
    "Linear",
    "Stream",
    "StreamPool",
    "Tape",
    "__version__",
    "convert",
    "functional",
    "get_num_threads",
    "info",
    "load",
    "load_metadata",
    "load_tensors",
    "losses",
    "optim",
    "save",
    "save_tensors",
    "set_num_threads",
]
