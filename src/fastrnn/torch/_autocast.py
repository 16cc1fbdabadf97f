"""Under torch.autocast: the kernels compute in float32, and return the dtypes that torch returns.

torch multiplies in autocast's dtype. LSTM and GRU then mix those products with c or h: where that
has another dtype, the results have the wider of both. All of it was found by comparing:
tests/test_torch_autocast.py does so again.
"""

from __future__ import annotations

from typing import Any

import torch

from ._call import Tensor
from ._modules import states_of

is_autocast_enabled = torch.is_autocast_enabled  # asked at every call


def _onednn_dtypes() -> tuple[Any, ...]:
    """The dtypes of inputs that torch's LSTM gives to oneDNN on this CPU; half only to infer."""
    if not torch.backends.mkldnn.is_available():
        return ()
    ops, known = torch.ops.mkldnn, [torch.float32]
    for dtype, check in (
        (torch.bfloat16, "_is_mkldnn_bf16_supported"),
        (torch.float16, "_is_mkldnn_fp16_supported"),
    ):
        if hasattr(ops, check) and getattr(ops, check)():
            known.append(dtype)
    return tuple(known)


_ONEDNN = _onednn_dtypes()  # once: torch.compile does not record the question


def cast(tensor: Any, dtype: Any) -> Any:
    """Floating-point tensors, and pairs of them, in a dtype; float64 stays, as under autocast."""
    if isinstance(tensor, (tuple, list)):
        return tuple(cast(t, dtype) for t in tensor)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def entered(
    config: tuple[Any, ...], x: Tensor, hx: Any, dtype: Any, whole: bool
) -> tuple[Any, Any, Any]:
    """x and hx as the kernels take them, and the dtypes to return h and c in, or None.

    Args:
        config: a Kernel's.
        dtype: that of the weights. torch leaves float64 alone, and refuses other inputs with it.
        whole: whether it is a layer whose rows all have all steps: then torch asks oneDNN.

    Raises:
        IrregularCallError: hx has another form.
    """
    if dtype is torch.float64:
        return x, hx, None
    cell, proj = config[0], config[-1]
    low = of_h = of_c = torch.get_autocast_dtype("cpu")
    if cell in ("lstm", "gru") and not (whole and cell == "lstm" and not proj and _on_onednn(x)):
        h0, c0 = states_of(hx, cell == "lstm")
        state = c0 if cell == "lstm" else h0
        if (x if state is None else state).dtype is not low:
            of_c = torch.float32  # what promote_types says; torch.export would record a call of it
        of_h = low if proj else of_c
    return cast(x, dtype), cast(hx, dtype), (of_h, of_c)


def left(dtypes: Any, *results: Any) -> Any:
    """Some h (y is one), and c behind them, which may be None, in these dtypes."""
    *h, c = results
    return (*[cast(t, dtypes[0]) for t in h], cast(c, dtypes[1]))


def _on_onednn(x: Tensor) -> bool:
    """Whether torch's LSTM gives an input to oneDNN, which computes c in autocast's dtype too."""
    if x.dtype not in _ONEDNN or (x.dtype is torch.float16 and torch.is_grad_enabled()):
        return False
    if torch.compiler.is_compiling():  # cannot record the question; torch.export switches it off
        return True
    return torch._C._get_mkldnn_enabled() and 0 not in x.shape
