"""The compiled core: private, but for `Stream` and what `fastrnn.StreamPool` has from here.

Its methods check every array and tensor (dtype, shape, strides, whether it may be written to) and
name what is wrong in a TypeError or ValueError; the `plain_` ones return None for arguments that
take a closer look. `empty`, `dropout_mask`, `clock_times`, `fingerprint` and `Network.explain`
believe their arguments: the Python layer has checked them.

Shapes: T steps, B rows, I input_size, H hidden_size, L num_layers, D directions, P = proj_size or
H. A `threads` of 0 means the library's default.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Tensor = Any  # torch.Tensor
# (weight, grad, memory, first): arrays of one size, C-contiguous; `first`: the memory has no values
_Change = tuple[_Array, _Array, list[_Array], bool]
_Indices = Sequence[bool] | Sequence[int] | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]

__version__: str
max_threads: int
max_size: int  # of inputs, units, layers, features, and the rows of a stream or a pool
pad: int  # elements that rows of internal arrays are padded to
align: int  # bytes that what the core carves from a block is aligned to
huge_block: int  # bytes from which memory of the core's asks for pages of 2 MB

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def has_fma() -> bool:
    """Whether the instruction set in use promises equal bits."""

def cells() -> dict[str, tuple[int, int, bool]]:
    """Of each cell: gates of the weights, vectors per unit on a tape, whether it has a c."""

def build_info() -> dict[str, Any]: ...
def available_threads() -> int: ...
def vector_math(name: Literal["exp", "sigmoid", "tanh"], x: _Array) -> _Array: ...
def gated_tanh(gate: _Array, x: _Array) -> _Array: ...
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
    def config(self) -> tuple[str, str, int, int, int, bool, bool, int]: ...
    def pack(
        self, weights: Sequence[_Array], threads: int = 1, steps: int = 1, batch: int = 1
    ) -> None: ...
    def take(self, weights: Sequence[_Array], steps: int, batch: int) -> bool: ...
    def freeze(self) -> None: ...
    def weights(self) -> list[_Array]: ...
    def plain_call(
        self, x: Any, state: Any, batch_first: bool, threads: int
    ) -> tuple[_Array, Any] | None:
        """Return (y, final state), or None."""

    def plain_forward(
        self, x: Any, state: Any, batch_first: bool, threads: int
    ) -> tuple[_Array, Any, Tape] | None: ...
    def plain_backward(
        self,
        tape: Tape,
        dy: Any,
        dstate: Any,
        threads: int,
        input_grad: bool,
        step_norms: _Array | None,
    ) -> tuple[_Array | None, Any, list[_Array]] | None: ...
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
        step_norms: _Array | None,
    ) -> None: ...
    def explain(self, T: int, B: int, training: bool, threads: int) -> dict[str, Any]: ...

class Lease:
    """The packed weights of a pass forward, for the pass back: what they were, come what may."""

class Fixed:
    """The packed weights of tensors that are not to change while it lives; it keeps their memory.

    `changed` has the numbers of those whose contents are not what they were.
    """

    def changed(self) -> list[int]: ...

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
        fixed: Fixed | None,  # taken where the weights are these and nothing is kept
    ) -> tuple[_Tensor, _Tensor | None, _Tensor | None, _Tensor | None, Lease | None]: ...
    def fix(self, weights: Sequence[_Tensor], threads: int) -> Fixed: ...
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
def sgd(
    changes: list[_Change],  # memory: velocity, or without momentum nothing
    rate: float,
    momentum: float,
    dampening: float,
    decay: float,
    nesterov: bool,
    threads: int,
) -> None: ...
def adam(
    changes: list[_Change],  # memory: mean and square
    first: float,
    second: float,
    correction: float,
    eps: float,
    rate: float,
    decay: float,
    shrink: float,
    threads: int,
) -> None: ...
def sum_of_squares(arrays: list[_Array], threads: int) -> float: ...
def scale(arrays: list[_Array], factor: float, threads: int) -> bool: ...

class Dense:
    """The packed weights of y = x W^T + b."""

    def __init__(self, dtype: str, in_features: int, out_features: int, bias: bool) -> None: ...
    def pack(self, weight: _Array, bias: _Array | None) -> None: ...
    def take(self, weight: _Array, bias: _Array | None, rows: int) -> bool: ...
    def call(self, x: Any, threads: int, out: Any = None) -> _Array:
        """Return y [..., O] of x [..., I]."""

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
    """A recurrent layer fed one sample at a time, its memory carried along.

    Made by `layer.stream(batch_size)`. It keeps the weights the layer had then, gives the bits the
    layer gives for the whole sequence, and allocates nothing after creation. A stream is used from
    one thread at a time: a call that meets another one is a RuntimeError. copy.copy, copy.deepcopy
    and pickle give another stream at the same point, with the same weights.

    Shapes: B is batch_size, I input_size, P output_size, L num_layers, H the layer's hidden_size.
    """

    def __init__(self, network: Network, batch_size: int = 1, num_threads: int = 1) -> None: ...
    def step(self, x: Any, out: _Array | None = None) -> _Array:
        """Advance by one step and return y, the output of the last layer.

        After an error the state is what it was.

        Args:
            x: [B, I], or [I] when batch_size is 1, of the stream's dtype: a NumPy array, or what
                has `__dlpack__` or `__array__`. Copied unless it is C-contiguous.
            out: [B, P], or [P] when batch_size is 1: the array that y is written into and that is
                returned; nothing is allocated then. C-contiguous, writable, apart from x.

        Returns:
            `out`, or a new array: [B, P], or [P] where x is [I].

        Raises:
            TypeError: no array, a masked one, or one of another dtype.
            ValueError: another shape; an `out` that is read-only, has gaps or overlaps x.
            RuntimeError: another thread uses the stream.
        """

    def process(self, block: Any, out: _Array | None = None) -> _Array:
        """Advance by T steps and return all their outputs: the bits of T calls of `step`.

        Releases the GIL. After an error the state is what it was.

        Args:
            block: [T, B, I], or [T, I] when batch_size is 1, as x of `step`. T may be 0.
            out: [T, B, P], or [T, P] for a block [T, I]: the array that y is written into and that
                is returned. C-contiguous, writable, apart from block.

        Returns:
            `out`, or a new array of its shape.

        Raises:
            TypeError: no array, a masked one, or one of another dtype.
            ValueError: another shape; an `out` that is read-only, has gaps or overlaps block.
            RuntimeError: another thread uses the stream.
        """

    def reset(self, rows: _Indices | int | None = None) -> None:
        """Set the state to zero, of all rows or of some; after an error, of none.

        Args:
            rows: None for all; else a bool mask [B], or integers from 0 to B - 1, one alone or [n]
                in any order.

        Raises:
            TypeError: neither booleans nor integers, or a masked array.
            ValueError: a mask of another shape, a row that is not there.
            RuntimeError: another thread uses the stream.
        """

    @property
    def state(self) -> Any:
        """The memory: (h, c) of an LSTM, h alone of others; h [L, B, P], c [L, B, H].

        Arrays of the stream's dtype. Reading copies. Assigning copies, too, once all of it has been
        checked: after an error the state is what it was. When batch_size is 1, [L, P] and [L, H]
        are taken as well.

        Raises:
            TypeError: no pair (h, c) for an LSTM, no array, or one of another dtype.
            ValueError: another shape, another number of arrays.
            RuntimeError: another thread uses the stream.
        """

    @state.setter
    def state(self, value: Any) -> None: ...
    @property
    def batch_size(self) -> int:
        """B: how many rows a step has, each with a memory of its own."""

    @property
    def input_size(self) -> int:
        """I: how many features x has."""

    @property
    def output_size(self) -> int:
        """P: how many features y has, the layer's proj_size, or hidden_size without one."""

    @property
    def num_layers(self) -> int:
        """L: how many layers the state is of."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of x, y and the state, float32 or float64."""

    @property
    def num_threads(self) -> int:
        """How many threads a step may use at most."""

    @property
    def _network(self) -> Network: ...
    def _step_times(self, block: _Array, count: int) -> npt.NDArray[np.int64]: ...
    def __copy__(self) -> Stream: ...
    def __deepcopy__(self, memo: dict[int, Any]) -> Stream: ...

class StreamPool:
    """Many streams stepped as one batch; `fastrnn.StreamPool` makes it of a layer."""

    def __init__(self, network: Network, capacity: int, num_threads: int) -> None: ...
    def join(self, state: Any) -> int: ...
    def leave(self, id: int) -> None: ...
    def reset(self, ids: Any) -> None: ...
    def step(
        self, ids: Sequence[int] | npt.NDArray[Any], x: Any, out: _Array | None = None
    ) -> _Array:
        """Advance just these streams by one step and return their outputs.

        Releases the GIL when there are more than about 20 us of work. After an error no stream has
        advanced.

        Args:
            ids: integers [n] in any order, each once. An int64 array is used where it lies.
            x: [n, I] in the order of the ids, or [I] with one id, of the pool's dtype: a NumPy
                array, or what has `__dlpack__` or `__array__`. Copied unless it is C-contiguous.
            out: [n, P], or [P] with one id: the array that y is written into and that is returned;
                nothing is allocated then. C-contiguous, writable, apart from x.

        Returns:
            `out`, or a new array: [n, P] in the order of the ids, or [P] where x is [I].

        Raises:
            TypeError: ids that are no integers; no array, a masked one, or one of another dtype.
            ValueError: an unknown or a repeated id; another shape; an `out` that is read-only, has
                gaps or overlaps x.
            RuntimeError: another thread uses the pool.
        """

    def process(
        self, ids: Sequence[int] | npt.NDArray[Any], x: Any, out: _Array | None = None
    ) -> _Array:
        """Advance just these streams by T steps: the bits of T calls of `step`, in less time.

        Releases the GIL when there are more than about 20 us of work. After an error no stream has
        advanced.

        Args:
            ids: integers [n], as for `step`.
            x: [T, n, I] in the order of the ids, or [T, I] with one id, as x of `step`. T may be 0.
            out: [T, n, P], or [T, P] for x [T, I]: the array that y is written into and that is
                returned. C-contiguous, writable, apart from x.

        Returns:
            `out`, or a new array of its shape.

        Raises:
            TypeError: ids that are no integers; no array, a masked one, or one of another dtype.
            ValueError: an unknown or a repeated id; another shape; an `out` that is read-only, has
                gaps or overlaps x.
            RuntimeError: another thread uses the pool.
        """

    def get_state(self, id: int) -> Any: ...
    def set_state(self, id: int, state: Any) -> None: ...
    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Ids of all streams in the pool, int64 [len(pool)], in no particular order."""

    @property
    def capacity(self) -> int:
        """How many streams the pool can hold."""

    @property
    def input_size(self) -> int:
        """I: how many features x has."""

    @property
    def output_size(self) -> int:
        """P: how many features y has, the layer's proj_size, or hidden_size without one."""

    @property
    def num_layers(self) -> int:
        """L: how many layers the state is of."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of x, y and the state, float32 or float64."""

    @property
    def num_threads(self) -> int:
        """How many threads a step may use at most."""

    @property
    def _network(self) -> Network: ...
    def _book(self) -> tuple[list[int], list[int], list[int]]: ...
    def _restore(self, ids: list[int], next: list[int], free: list[int]) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...
