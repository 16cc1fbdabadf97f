"""fastrnn's kernels as modules of PyTorch: drop-ins for torch.nn's recurrent layers and cells.

::

    import fastrnn.torch
    lstm = fastrnn.torch.LSTM(64, 128, num_layers=2)   # used like a torch.nn.LSTM, but faster
    print(fastrnn.torch.accelerate(model))             # the recurrent layers of an existing model

`import fastrnn` never imports torch.
"""

from ._accelerate import Entry, Report, accelerate, restore
from ._fixed import fixed_weights
from .cells import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Entry",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Report",
    "accelerate",
    "fixed_weights",
    "restore",
]
