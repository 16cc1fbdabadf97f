"""RNN, LSTM and GRU as modules of PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .._arguments import refuse_masked
from ._autocast import entered, is_autocast_enabled, left
from ._autograd import exporting, recording, taken_apart, transformed
from ._call import BATCH, PACKED, TIME, UNBATCHED, Call
from ._modules import (
    ForeignTensorsError,
    IrregularCallError,
    check,
    check_lengths,
    compute,
    dtype_of,
    leaf_of,
    refuse_script,
    renamed,
    states_of,
    tracer_of,
    weights_of,
    with_tensors,
    without_kernel,
)

_CELLS = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}

# By batch_first and the number of axes: the layout, and which axis is time.
_PADDED = ({2: (UNBATCHED, 0), 3: (TIME, 0)}, {2: (UNBATCHED, 0), 3: (BATCH, 1)})


class _Layer(torch.nn.RNNBase):
    """A layer of torch.nn with another forward.

    RNNBase is its base, not torch.nn.LSTM: torch.compile refuses whatever is one of those.
    """

    _torch: Any  # the class in torch.nn
    __prepare_scriptable__ = refuse_script

    def __getstate__(self) -> dict[str, Any]:
        return without_kernel(super().__getstate__())

    def _load_from_state_dict(self, state_dict: Any, *args: Any, **named: Any) -> None:
        """As torch's, but values may be arrays."""
        with_tensors(state_dict)
        super()._load_from_state_dict(state_dict, *args, **named)

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        """Run over whole sequences; see torch.nn for arguments, results and errors.

        `lengths` is not an argument of torch's. For a padded batch, [T, B, input] or [B, T, input],
        it holds integers [B] in 0..T, in any order: row b has lengths[b] steps, and its final state
        is taken after them; later inputs are not read, and their outputs are zero. The results are
        those of a PackedSequence, without packing and padding, which take a quarter of a training
        step.

        Raises:
            TypeError, ValueError: lengths that are not such integers, or for another kind of input.
            NotImplementedError: lengths inside torch.func's transforms, in forward mode, or in an
                export to ONNX.
        """
        if lengths is not None:
            lengths = _as_lengths(lengths, input)
        try:
            return self._run(input, hx, lengths)
        except IrregularCallError as error:
            # left first, so that torch's error comes without ours as its context
            foreign = isinstance(error, ForeignTensorsError)
        except RuntimeError:
            if isinstance(input, PackedSequence):
                _refuse_packed()
            raise
        if lengths is None and (tracer := tracer_of(self, input, hx)):
            return leaf_of(self, tracer, input, hx)
        if lengths is not None:
            _refuse_lengths()
        if foreign and lengths is not None and not lengths.is_meta and not input.is_meta:
            return self._packed(input, hx, lengths)
        if isinstance(input, PackedSequence):
            self._check_states(input.data, hx, input.batch_sizes)
        result = self._torch.forward(self, input, hx)
        if lengths is not None and not foreign:
            raise ValueError("lengths: torch's own layer computes this call, and takes none")
        return result

    def _slow_forward(self, *given: Any, **named: Any) -> Any:
        """What torch calls in traces. Its export to ONNX gives all arguments by their places."""
        if len(given) == 3 and exporting():
            input, hx, named["lengths"] = given
            given = input, hx
        return super()._slow_forward(*given, **named)

    def _packed(self, x: Any, hx: Any, lengths: Any) -> Any:
        """What a padded batch gives in torch's own layer."""
        self._check_states(x, hx, None)
        batch, steps = x.shape[:2] if self.batch_first else (x.shape[1], x.shape[0])
        check_lengths(lengths, steps, batch)
        packed = pack_padded_sequence(x, lengths.cpu(), self.batch_first, enforce_sorted=False)
        y, state = self._torch.forward(self, packed, hx)
        return pad_packed_sequence(y, self.batch_first, total_length=steps)[0], state

    def _check_states(self, x: Any, hx: Any, batch_sizes: Any) -> None:
        """Torch's own check. Its packed LSTM omits it, and reads past states that are too small."""
        if hx is None:
            self.check_input(x, batch_sizes)
        else:
            self.check_forward_args(x, hx, batch_sizes)

    def _run(self, input: Any, hx: Any, lengths: Any) -> Any:
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        names = self._flat_weights_names
        weights = weights_of(self, names)
        config = self._config()
        dtypes = None
        if is_autocast_enabled("cpu"):
            dtype = dtype_of(self, names, weights, x)
            whole = not packed and lengths is None
            x, hx, dtypes = entered(config, x, hx, dtype, whole)
        order = back = None
        if packed:
            _, batch_sizes, order, back = input
            call = Call(PACKED, int(batch_sizes[0]), 0.0, batch_sizes)
            if order is not None and hx is not None:
                hx = self.permute_hidden(hx, order)
        else:
            call = self._padded(x, lengths)
        is_lstm = self.mode == "LSTM"
        states = states_of(hx, is_lstm)
        if self.training and self.num_layers > 1 and self.dropout != 0:
            if taken_apart() or not 0 <= self.dropout <= 1:  # of which torch tells
                raise ForeignTensorsError
            check(self, config, x, states, names, weights, call)  # before the generator moves
            # The key of the masks, from torch's default generator.
            seed = torch.randint(0, 2**63 - 1, (1,), device="cpu")
            call = call.with_seed(self.dropout, seed)
        y, hn, cn = compute(self, config, x, states, names, weights, call)
        if dtypes is not None:
            y, hn, cn = left(dtypes, y, hn, cn)
        state = (hn, cn) if is_lstm else hn
        if not packed:
            return y, state
        return PackedSequence(y, call.batch_sizes, order, back), self.permute_hidden(state, back)

    def _config(self) -> tuple[Any, ...]:
        """The arguments of the layer's Kernel."""
        return (
            _CELLS[self.mode], self.input_size, self.hidden_size, self.num_layers,
            self.bias, self.bidirectional, self.proj_size,
        )  # fmt: skip

    def _padded(self, x: Any, lengths: Any) -> Call:
        """The layout of an input; IrregularCallError where it has other axes, or no steps."""
        if not isinstance(x, torch.Tensor):
            raise IrregularCallError
        shape = x.shape
        found = _PADDED[bool(self.batch_first)].get(len(shape))
        if found is None or shape[found[1]] == 0:
            raise IrregularCallError
        return Call(found[0], 1, 0.0, None, None, lengths)


def _refuse_lengths() -> None:
    """Raise NotImplementedError where only torch's own layers can compute, which take none."""
    if transformed():
        where = "inside torch.func's transforms and in forward mode"
    elif exporting():
        where = "in an export to ONNX: torch's own layers take none"
    else:
        return
    raise NotImplementedError(f"lengths: expected None {where}")


def _refuse_packed() -> None:
    """Raise NotImplementedError in an export to ONNX that does not know how many rows there are."""
    if exporting() and torch._C._get_tracing_state() is None:
        raise NotImplementedError(
            "input: expected a padded batch in an export to ONNX with dynamo=True, got a "
            "PackedSequence, for which torch's own layers need dynamo=False"
        ) from None


def _as_lengths(value: Any, input: Any) -> Any:
    """Integers, maybe in a list, as a tensor of int64 that is a copy, for backward."""
    if isinstance(input, PackedSequence) or (isinstance(input, torch.Tensor) and input.dim() < 3):
        raise ValueError(
            "lengths: expected None, except for a padded batch [T, B, input] or [B, T, input]"
        )
    refuse_masked("lengths", value)
    if type(value) is torch.Tensor and value.dtype is torch.uint64 and value.is_cpu:
        value = value if recording() else value.numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        most = int(value.max(initial=0))
        if most > 2**63 - 1:  # a cast would make it negative
            raise ValueError(f"lengths: expected values <= {2**63 - 1}, got {most}")
        value = value.astype(np.int64)  # any byte order and strides
    try:
        lengths = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"lengths: expected integers [B], got {type(value).__name__}: {error}"
        raise TypeError(message) from None
    dtype = lengths.dtype
    if lengths.numel() and (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool):
        raise TypeError(f"lengths: expected integers, got {dtype}")
    return lengths.to(torch.int64, copy=True)


class RNN(_Layer):
    """`torch.nn.RNN` on fastrnn's kernels: its constructor, parameters, results and errors."""

    _torch = torch.nn.RNN
    forward = renamed(_Layer.forward, "RNN")

    if TYPE_CHECKING:  # torch's arguments; it is torch that refuses others

        def __init__(
            self,
            input_size: int,
            hidden_size: int,
            num_layers: int = 1,
            nonlinearity: str = "tanh",
            bias: bool = True,
            batch_first: bool = False,
            dropout: float = 0.0,
            bidirectional: bool = False,
            device: Any = None,
            dtype: Any = None,
        ) -> None: ...

    else:

        def __init__(self, *args, **kwargs):
            """See torch.nn.RNN."""
            if "proj_size" in kwargs:
                raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
            if len(args) > 3:
                self.nonlinearity = args[3]
                args = args[:3] + args[4:]
            else:
                self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
            if self.nonlinearity not in ("tanh", "relu"):
                raise ValueError(
                    f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'."
                )
            super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class LSTM(_Layer):
    """`torch.nn.LSTM` on fastrnn's kernels: its constructor, parameters, results and errors."""

    _torch = torch.nn.LSTM
    forward = renamed(_Layer.forward, "LSTM")
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    check_forward_args = torch.nn.LSTM.check_forward_args
    permute_hidden = torch.nn.LSTM.permute_hidden

    if TYPE_CHECKING:  # torch's arguments; it is torch that refuses others

        def __init__(
            self,
            input_size: int,
            hidden_size: int,
            num_layers: int = 1,
            bias: bool = True,
            batch_first: bool = False,
            dropout: float = 0.0,
            bidirectional: bool = False,
            proj_size: int = 0,
            device: Any = None,
            dtype: Any = None,
        ) -> None: ...

    else:

        def __init__(self, *args, **kwargs):
            """See torch.nn.LSTM."""
            super().__init__("LSTM", *args, **kwargs)


class GRU(_Layer):
    """`torch.nn.GRU` on fastrnn's kernels: its constructor, parameters, results and errors."""

    _torch = torch.nn.GRU
    forward = renamed(_Layer.forward, "GRU")

    if TYPE_CHECKING:  # torch's arguments; it is torch that refuses others

        def __init__(
            self,
            input_size: int,
            hidden_size: int,
            num_layers: int = 1,
            bias: bool = True,
            batch_first: bool = False,
            dropout: float = 0.0,
            bidirectional: bool = False,
            device: Any = None,
            dtype: Any = None,
        ) -> None: ...

    else:

        def __init__(self, *args, **kwargs):
            """See torch.nn.GRU."""
            if "proj_size" in kwargs:
                raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
            super().__init__("GRU", *args, **kwargs)
