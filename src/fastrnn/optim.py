"""Optimizers with torch's argument names and update rules, and gradient-norm clipping.

::

    opt = fastrnn.optim.Adam([lstm, head], lr=1e-3)
    ...
    fastrnn.optim.clip_grad_norm_([g_lstm, g_head], 1.0)
    opt.step([g_lstm, g_head])          # in the order of the modules

Gradients come as `Gradients`, or as dicts of weights by name; for one module, alone or in a list.

Arrays of your own, such as the table of an embedding, stand among the modules (or alone) as a dict
by name, and their gradients, a dict too, at the same place::

    own = {"embedding": table}
    opt = fastrnn.optim.Adam([own, lstm, head])
    opt.step([{"embedding": dtable}, g_lstm, g_head])

They are NumPy arrays of float32 or float64 that can be written to, of any shape and strides, and
share no memory with each other. A step changes them where they lie, so the dict has to keep the
same arrays: assign by `own["embedding"][...] = other`. Pickles and deep copies of an optimizer
have its arrays, too; put `own` into the same pickle, and both go on with the same ones. Two
optimizers of the same arrays do not wait for each other, as two of one layer do: step both in one
thread.

Options such as `lr` are plain attributes: assign to them for a schedule. To resume training, pickle
an optimizer together with its modules, or keep its `state_dict` beside theirs (and, with dropout,
`layer.generator.bit_generator.state`, which draws the masks).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from . import _core, _threads
from ._arguments import as_flag, as_real
from ._clipping import clip_grad_norm_
from ._optimizer import Change, ModuleOrArrays, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (torch.optim.SGD).

    g += weight_decay w; v = momentum v + (1 - dampening) g (the first v is g itself); then
    w -= lr v, with `nesterov` w -= lr (g + momentum v).

    Args:
        modules: an RNN, LSTM, GRU or Linear, a dict of arrays of your own, or several of these;
            `step` takes gradients in their order.
        lr: number >= 0, the learning rate.
        momentum: number >= 0; 0 keeps no v.
        dampening: finite number.
        weight_decay: number >= 0.
        nesterov: True or False; True asks for momentum > 0 and dampening = 0.

    Raises:
        TypeError: `modules` that are neither; an array that is none of float32 or float64; an
            option of a wrong type.
        ValueError: a module that comes twice; arrays that are read-only or share memory; an option
            out of its range.
    """

    momentum: float
    dampening: float
    nesterov: bool
    _parts = ("velocity",)
    _always = False

    def __init__(
        self,
        modules: ModuleOrArrays | Iterable[ModuleOrArrays],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            modules,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    @classmethod
    def _options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        momentum = as_real("momentum", given["momentum"], 0.0)
        dampening = as_real("dampening", given["dampening"])
        nesterov = as_flag("nesterov", given["nesterov"])
        if nesterov and (momentum == 0.0 or dampening != 0.0):
            raise ValueError(
                "nesterov: expected momentum > 0 and dampening = 0 with it, "
                f"got momentum = {momentum:g}, dampening = {dampening:g}"
            )
        own = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        return super()._options(given) | own

    def _remembers(self) -> bool:
        return self.momentum != 0.0

    def _update(self, changes: list[Change], steps: int) -> None:
        numbers = self.lr, self.momentum, self.dampening, self.weight_decay
        _core.sgd(changes, *numbers, self.nesterov, _threads.default)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980; torch.optim.Adam).

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), t counting the steps from 1.
    `weight_decay` times w is added to g before.

    Args:
        modules: an RNN, LSTM, GRU or Linear, a dict of arrays of your own, or several of these;
            `step` takes gradients in their order.
        lr: number >= 0, the learning rate.
        betas: b1 and b2, each in [0, 1).
        eps: number >= 0.
        weight_decay: number >= 0.

    Raises:
        TypeError: `modules` that are neither; an array that is none of float32 or float64; an
            option of a wrong type.
        ValueError: a module that comes twice; arrays that are read-only or share memory; an option
            out of its range.
    """

    betas: tuple[float, float]
    eps: float
    _parts = ("mean", "square")
    _always = True

    def __init__(
        self,
        modules: ModuleOrArrays | Iterable[ModuleOrArrays],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(modules, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @classmethod
    def _options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            first, second = given["betas"]
        except (TypeError, ValueError):
            message = f"betas: expected a pair of numbers, got {given['betas']!r:.80}"
            raise TypeError(message) from None
        betas = (
            as_real("betas[0]", first, 0.0, 1.0, open_high=True),
            as_real("betas[1]", second, 0.0, 1.0, open_high=True),
        )
        own = {"betas": betas, "eps": as_real("eps", given["eps"], 0.0)}
        return super()._options(given) | own

    def _decays(self) -> tuple[float, float]:
        """Return what is added to the gradient times w, and what w is multiplied by before."""
        return self.weight_decay, 1.0

    def _update(self, changes: list[Change], steps: int) -> None:
        b1, b2 = self.betas
        correction, rate = math.sqrt(1.0 - b2**steps), self.lr / (1.0 - b1**steps)
        decays = self._decays()
        _core.adam(changes, b1, b2, correction, self.eps, rate, *decays, _threads.default)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    w shrinks by the factor 1 - lr weight_decay before Adam's step (torch.optim.AdamW), and g is
    left as it is.

    Args:
        modules: an RNN, LSTM, GRU or Linear, a dict of arrays of your own, or several of these;
            `step` takes gradients in their order.
        lr: number >= 0, the learning rate.
        betas: b1 and b2 of Adam, each in [0, 1).
        eps: number >= 0.
        weight_decay: number >= 0.

    Raises:
        TypeError: `modules` that are neither; an array that is none of float32 or float64; an
            option of a wrong type.
        ValueError: a module that comes twice; arrays that are read-only or share memory; an option
            out of its range.
    """

    def __init__(
        self,
        modules: ModuleOrArrays | Iterable[ModuleOrArrays],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(modules, lr, betas, eps, weight_decay)

    def _decays(self) -> tuple[float, float]:
        return 0.0, 1.0 - self.lr * self.weight_decay
