"""The compiled core: private, called only with arguments the Python layer has checked.

But for the `plain_` methods: those check, and return None for arguments that take a closer look.

Shapes: T steps, B rows, I input_size, H hidden_size, L num_layers, D directions, P = proj_size or
H. A `threads` of 0 means the library's default.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Tensor = Any  # torch.Tensor
_Indices = Sequence[bool] | Sequence[int] | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]

__version__: str
max_threads: int

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def build_info() -> dict[str, Any]: ...
def available_threads() -> int: ...
def vector_math(name: Literal["exp", "sigmoid", "tanh"], x: _Array) -> _Array: ...
def probe() -> dict[str, float]: ...
def peak() -> float: ...
def empty(shape: Sequence[int], dtype: np.dtype[Any]) -> _Array:
    """A new array of float32 or float64 whose values are not set.

    An array of 64 KiB or more lies on memory that fastrnn keeps (64 MiB at most) when the array is
    gone, for the next one: fresh pages from the system would cost up to a third of a call.
    """

def dropout_mask(size: int, dtype: np.dtype[Any], p: float, key: int, layer: int) -> _Array:
    """What dropout multiplies the outputs of an inner layer with: [T, B, D * P], flat."""

def clock_times(count: int) -> npt.NDArray[np.int64]: ...

class Tape:
    """What one forward call keeps for BPTT."""

    @property
    def nbytes(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def batched(self) -> bool: ...
    @property
    def batch_first(self) -> bool: ...

class Network:
    """The packed weights of a stack of layers; its shape never changes."""

    def __init__(
        self,
        cell: str,
        dtype: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        proj_size: int,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def config(self) -> tuple[str, str, int, int, int, bool, bool, int]: ...
    def pack(
        self, weights: Sequence[_Array], threads: int = 1, steps: int = 1, batch: int = 1
    ) -> None: ...
    def freeze(self) -> None: ...
    def weights(self) -> list[_Array]: ...
    def plain_call(
        self, x: Any, state: Any, batch_first: bool, threads: int
    ) -> tuple[_Array, Any] | None: ...
    def plain_forward(
        self, x: Any, state: Any, batch_first: bool, threads: int
    ) -> tuple[_Array, Any, Tape] | None: ...
    def plain_backward(
        self, tape: Tape, dy: Any, dstate: Any, threads: int
    ) -> tuple[_Array, Any, list[_Array]] | None: ...
    def run(
        self,
        x: _Array,
        h0: _Array | None,
        c0: _Array | None,
        lengths: npt.NDArray[np.int64] | None,
        y: _Array,
        hn: _Array,
        cn: _Array | None,
        dropout: float,
        seed: int,
        threads: int,
    ) -> None: ...
    def forward(
        self,
        x: _Array,
        h0: _Array | None,
        c0: _Array | None,
        lengths: npt.NDArray[np.int64] | None,
        y: _Array,
        hn: _Array,
        cn: _Array | None,
        dropout: float,
        seed: int,
        threads: int,
        batched: bool,
        batch_first: bool,
    ) -> Tape: ...
    def backward(
        self,
        tape: Tape,
        dy: _Array | None,
        dh: _Array | None,
        dc: _Array | None,
        dx: _Array | None,
        dh0: _Array | None,
        dc0: _Array | None,
        grads: Sequence[_Array],
        threads: int,
    ) -> None: ...
    def explain(self, T: int, B: int, training: bool, threads: int) -> dict[str, Any]: ...

class Lease:
    """The packed weights of a pass forward, for the pass back: what they were, come what may."""

class Follower:
    """The kernels for weights that are somebody else's, packed as their contents change.

    Tensors are torch's. Whatever they are, a wrong one is a TypeError or ValueError that names it.
    A call is a `Call` of fastrnn/torch/_call.py.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        proj_size: int,
    ) -> None: ...
    @property
    def packings(self) -> int: ...
    def forward(
        self,
        x: _Tensor,
        h0: _Tensor | None,
        c0: _Tensor | None,
        weights: Sequence[_Tensor],
        call: tuple[Any, ...],
        threads: int,
        keep: bool,
    ) -> tuple[_Tensor, _Tensor | None, _Tensor | None, _Tensor | None, Lease | None]: ...
    def backward(
        self,
        x: _Tensor,
        y: _Tensor | None,
        reserve: _Tensor,
        weights: Sequence[_Tensor],  # not looked at where there is a lease
        call: tuple[Any, ...],
        threads: int,
        upstream: tuple[_Tensor | None, ...],  # dy, dh, dc
        wanted: tuple[bool, ...],  # dx, dh0, dc0, all of the weights
        lease: Lease | None,
    ) -> list[_Tensor | None]: ...

def use_tensors(tensor_class: type, by_table: bool) -> None: ...
def fingerprint(data: int, size: int) -> int: ...

class Dense:
    """The packed weights of y = x W^T + b."""

    def __init__(self, dtype: str, in_features: int, out_features: int, bias: bool) -> None: ...
    def pack(self, weight: _Array, bias: _Array | None) -> None: ...
    def plain_call(self, x: Any, threads: int) -> _Array | None: ...
    def run(self, x: _Array, y: _Array, threads: int) -> None: ...
    def backward(
        self,
        x: _Array,
        dy: _Array,
        dx: _Array | None,
        dweight: _Array,
        dbias: _Array | None,
        threads: int,
    ) -> None: ...

class Stream:
    """Carries a network's memory from sample to sample; belongs to one thread."""

    def __init__(self, network: Network, batch_size: int = 1, num_threads: int = 1) -> None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def state(self) -> Any: ...
    @state.setter
    def state(self, value: Any) -> None: ...
    def step(self, x: _Array, out: _Array | None = None) -> _Array: ...
    def process(self, block: _Array, out: _Array | None = None) -> _Array: ...
    def reset(self, rows: _Indices | None = None) -> None: ...
    def step_times(self, block: _Array, count: int) -> npt.NDArray[np.int64]: ...
    @property
    def network(self) -> Network: ...
    @property
    def num_threads(self) -> int: ...
    def __copy__(self) -> Stream: ...
    def __deepcopy__(self, memo: dict[int, Any]) -> Stream: ...

class StreamPool:
    """Many streams stepped as one batch; `fastrnn.StreamPool` makes it of a layer."""

    def __init__(self, network: Network, capacity: int, num_threads: int) -> None: ...
    def join(self) -> int: ...
    def leave(self, id: int) -> None: ...
    def reset(self, id: int) -> None: ...
    def step(
        self, ids: Sequence[int] | npt.NDArray[Any], x: _Array, out: _Array | None = None
    ) -> _Array:
        """step(ids, x, out=None) -> y ..."""
    def get_state(self, id: int) -> Any: ...
    def set_state(self, id: int, state: Any) -> None: ...
    def book(self) -> tuple[list[int], list[int], list[int]]: ...
    def restore(self, ids: list[int], next: list[int], free: list[int]) -> None: ...
    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def capacity(self) -> int: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def network(self) -> Network: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...
