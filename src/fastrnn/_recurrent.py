"""What RNN, LSTM and GRU have in common."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np

from . import _core, _initial, _threads
from ._arguments import (
    MOST_SIZE,
    Array,
    as_flag,
    as_real,
    as_seed,
    as_size,
    as_threads,
)
from ._engine import Engine, warn_of_dropout
from ._explain import Explanation
from ._memory import in_large_pages
from ._module import Module
from ._spec import Spec, checked_spec
from ._tape import Gradients, Tape

S = TypeVar("S")  # the state: one array, for LSTM a pair


class Recurrent(Module, Generic[S]):
    """A stack of recurrent layers, in one or both directions of time."""

    def _configure(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: Any,
        seed: int | None,
        forget_bias: float | None,
        orthogonal: bool,
        num_threads: int | None,
    ) -> None:
        """Check every option, then draw the weights."""
        spec = checked_spec(
            cell, dtype, input_size, hidden_size, num_layers, bias, bidirectional, proj_size
        )
        if forget_bias is not None:
            most = float(np.finfo(spec.dtype).max)
            forget_bias = as_real("forget_bias", as_real("forget_bias", forget_bias), -most, most)
            if not spec.bias:
                raise ValueError(f"forget_bias: expected None with bias=False, got {forget_bias:g}")
        dropout = as_real("dropout", dropout, 0.0, 1.0)
        warn_of_dropout(dropout, spec.num_layers, stacklevel=3)
        batch_first = as_flag("batch_first", batch_first)
        self._threads = as_threads("num_threads", num_threads)
        self._rng = np.random.default_rng(as_seed(seed))
        orthogonal = as_flag("orthogonal", orthogonal)
        weights = _initial.recurrent(spec, self._rng, forget_bias, orthogonal)
        self._adopt(spec, batch_first, dropout, weights)

    @classmethod
    def _of(
        cls, spec: Spec, batch_first: bool, dropout: float, weights: dict[str, Array]
    ) -> Recurrent[S]:
        """Make a layer that takes over these arrays as its weights; all is checked already."""
        layer = cls.__new__(cls)
        layer._threads = 0
        layer._rng = np.random.default_rng()
        layer._adopt(spec, batch_first, dropout, weights)
        return layer

    def _adopt(
        self, spec: Spec, batch_first: bool, dropout: float, weights: dict[str, Array]
    ) -> None:
        self._spec = spec
        self._dtype = spec.dtype
        self._batch_first = batch_first
        self._dropout = dropout
        self._weights = weights
        self._build()

    def _build(self) -> None:
        for name, weight in self._weights.items():
            self._weights[name] = in_large_pages(weight)
        self._engine = Engine(self._spec, list(self._weights.values()))
        self._packing = self._engine.packing
        self._drops = self._dropout > 0.0 and self._spec.num_layers > 1

    def __call__(self, x: Any, state: Any = None, *, lengths: Any = None) -> tuple[Array, S]:
        """Run over whole sequences.

        T steps, B rows, I = input_size, L = num_layers, D = directions (2 when bidirectional),
        H = hidden_size, P = proj_size or H.

        Args:
            x: [T, B, I], with batch_first [B, T, I], or unbatched [T, I]. T and B may be 0.
            state: what the rows start from, None for zeros: h0 [L * D, B, P], for LSTM (h0, c0)
                with c0 [L * D, B, H]; without the batch axis when x has none. Either of an LSTM's
                two may be None.
            lengths: integers [B] in 0..T, in any order: row b ends after lengths[b] steps. Outputs
                past a row's end are zero, its final state is the one at its end, and the reverse
                direction starts there.

        Returns:
            y [T, B, D * P] (in x's layout) and the final state, shaped like `state`.

        Raises:
            TypeError: an argument of another dtype than the layer's, or no array at all.
            ValueError: a wrong shape; a length outside 0..T.
        """
        masks = self._masks if self._drops and self._training else None
        threads = self._threads or _threads.default
        return self._engine.run(x, state, lengths, self._batch_first, masks, threads)

    def forward(self, x: Any, state: Any = None, *, lengths: Any = None) -> tuple[Array, S, Tape]:
        """Run like a call, and keep on a tape what `backward` needs.

        Arguments and errors are those of a call. The tape refers to x and y: y comes read-only,
        and x must not change before `backward`.

        Returns:
            y, the final state, the tape.
        """
        masks = self._masks if self._drops and self._training else None
        threads = self._threads or _threads.default
        return self._engine.forward(x, state, lengths, self._batch_first, masks, threads)

    def backward(
        self,
        tape: Tape,
        dy: Any = None,
        dstate: Any = None,
        *,
        input_grad: bool = True,
        step_norms: bool = False,
    ) -> Gradients[S]:
        """Walk back through time: gradients of a loss, from those of its output and final state.

        Args:
            tape: from `forward` of this layer, with the weights it has now.
            dy: in y's shape, or None.
            dstate: in the final state's shape, or None; (dh, dc) for LSTM, each of which may be
                None. At least one gradient has to be given.
            input_grad: whether to compute the gradient of x, which takes up to a quarter of a
                training step. False for a layer that reads data.
            step_norms: whether to tell how large the gradient is at each step, float64
                [L * D, T, B] (in x's layout): the 2-norm of what reaches W_ih x + b_ih there,
                over all gates (the error signal of Hochreiter 1991). Steps where it is next to
                nothing teach the weights nothing: it has vanished. 0 past a row's end.

        Returns:
            Gradients with respect to x (None without `input_grad`), the initial state and every
            weight; and the norms.

        Raises:
            TypeError: a wrong dtype; a tape that is none; an `input_grad` or `step_norms` that is
                no bool.
            ValueError: a wrong shape; no gradient at all; a tape of another layer, or made before
                an edit of the weights began, be it during this call.
        """
        threads = self._threads or _threads.default
        return self._engine.backward(tape, dy, dstate, input_grad, step_norms, threads)

    def stream(self, batch_size: int = 1, *, num_threads: int | None = 1) -> _core.Stream:
        """Return a stream: memory carried from sample to sample, one `step` each, no allocation.

        It starts from zeros and keeps the weights the layer has now, whatever happens to the
        layer. Dropout does not act in it. A stream is used from one thread at a time.

        `num_threads`: 1 steps without a system call, for hard deadlines. More share the units of
        each step with helper threads, which pays from about 64 units of an LSTM on and costs
        about 0.3 us a step. Helpers spin for a millisecond after a step, then sleep; a step that
        finds them asleep is the caller's alone. None: as many as a call of the layer may use.

        Raises:
            TypeError: `batch_size` or `num_threads` is no integer.
            ValueError: the layer is bidirectional; `batch_size` not in 1..1,048,576, `num_threads`
                not in 1..1,024.
        """
        if self._spec.bidirectional:
            raise ValueError(
                "stream: expected bidirectional=False, got True; "
                "the reverse direction needs the end of the sequence first"
            )
        batch_size = as_size("batch_size", batch_size, 1, MOST_SIZE)
        num_threads = self._stream_threads(num_threads)
        return _core.Stream(self._packing.keep(), batch_size, num_threads)

    def _stream_threads(self, num_threads: int | None) -> int:
        asked = as_threads("num_threads", num_threads)
        return asked or self._threads or _threads.get_num_threads()

    def explain(self, T: int, B: int, training: bool = False) -> Explanation:
        """Say how T steps of B rows would be computed: kernel, split, threads, bytes, floor.

        Nothing is run. `print(layer.explain(100, 16))` reads well; the entries are attributes too:

        * kernel, isa: what computes it.
        * layers: a dict each, from the first layer up: threads; split, "none", "rows", "pipeline",
          "units" or "layers", and why; threads_from, "caller", "helpers" or "region" (OpenMP's);
          concurrent_directions, 1 or 2; weights, as what a step reads them: the layer's dtype, or
          "bfloat16" where one row reads weights that are such (not those that a first-level cache
          holds, nor on the way back); input_hoisted, whether the inputs of hoisted_steps steps are
          multiplied at once; step_ns, nanoseconds of a step forward by the model, and step_ns_none,
          step_ns_rows, step_ns_pipeline, step_ns_units and step_ns_layers, those of each split on
          all threads that are allowed, one direction after the other; an impossible split has the
          figure of one thread, and so has `layers` unless it was chosen.
        * flops: of all products; with `training` three times as many.
        * recurrent_weight_bytes: of what every step reads again; packed_bytes: of all weights.
        * expected_us, limit_us: by the model, and what the machine's peak and bandwidths allow.
        * expected_share_of_limit: limit_us / expected_us, 0 when there is nothing to do.

        It supposes cores that answer each other at once: a call that has found them far apart in
        the last 20 ms stays on one thread where it would wait too long for another. The results
        are the same bits.

        Raises:
            TypeError: a T or B that is no integer; a `training` that is no bool.
            ValueError: a T or B below 0 or above 2^31 - 1.
        """
        T, B = as_size("T", T, 0), as_size("B", B, 0)
        threads = self._threads or _threads.default
        lease = self._packing.acquire()
        try:
            return Explanation(lease.native.explain(T, B, as_flag("training", training), threads))
        finally:
            lease.users.pop()

    @property
    def generator(self) -> np.random.Generator:
        """What draws the masks of dropout, one number a call in which it acts. May be assigned.

        `layer.generator = np.random.default_rng(7)` makes the masks of the calls to come those of
        any layer that has done the same, one from `fastrnn.load`, too. To resume training, keep
        `layer.generator.bit_generator.state`, a dict that may be assigned, beside
        `layer.state_dict()`. Layers given the same object draw from it in turn.

        Raises:
            TypeError: no np.random.Generator was assigned.
        """
        return self._rng

    @generator.setter
    def generator(self, value: np.random.Generator) -> None:
        if not isinstance(value, np.random.Generator):
            got = type(value).__name__
            raise TypeError(
                f"generator: expected an np.random.Generator, got {got}; try np.random.default_rng"
            )
        self._rng = value

    def _masks(self) -> tuple[float, int]:
        """Return the dropout of this call and a fresh 64-bit key of its masks."""
        # A NumPy bit generator locks itself: calls from several threads get different keys.
        return self._dropout, int(self._rng.bit_generator.random_raw())

    @property
    def input_size(self) -> int:
        """I: features of x."""
        return self._spec.input_size

    @property
    def hidden_size(self) -> int:
        """H: units of a layer in one direction."""
        return self._spec.hidden_size

    @property
    def num_layers(self) -> int:
        """L: layers on top of each other."""
        return self._spec.num_layers

    @property
    def bias(self) -> bool:
        """Whether there are bias_ih and bias_hh."""
        return self._spec.bias

    @property
    def batch_first(self) -> bool:
        """Whether x and y are [B, T, ...]."""
        return self._batch_first

    @property
    def dropout(self) -> float:
        """Probability with which an output of a layer, but the last, is zeroed in training."""
        return self._dropout

    @property
    def bidirectional(self) -> bool:
        """Whether each layer also runs from the end to the start."""
        return self._spec.bidirectional

    def _architecture(self) -> dict[str, str]:
        spec = self._spec
        sizes = {
            "input_size": spec.input_size,
            "hidden_size": spec.hidden_size,
            "num_layers": spec.num_layers,
            "proj_size": spec.proj_size,
        }
        flags = {
            "bias": spec.bias,
            "batch_first": self._batch_first,
            "bidirectional": spec.bidirectional,
        }
        shown = {name: str(value) for name, value in sizes.items()}
        shown |= {name: str(value).lower() for name, value in flags.items()}
        return {"cell": spec.cell, **shown, "dropout": repr(self._dropout)}

    def _options(self) -> dict[str, Any]:
        """Options that `repr` shows where they differ from False, 0 and None."""
        return {}

    def __repr__(self) -> str:
        spec = self._spec
        options: dict[str, Any] = {} if spec.num_layers == 1 else {"num_layers": spec.num_layers}
        options.update(self._options())
        if not spec.bias:
            options["bias"] = False
        for name in ("batch_first", "dropout", "bidirectional"):
            if getattr(self, name):
                options[name] = getattr(self, name)
        if spec.dtype != np.float32:
            options["dtype"] = spec.dtype.name
        if self._threads:
            options["num_threads"] = self._threads
        shown = "".join(f", {name}={value!r}" for name, value in options.items())
        return f"{type(self).__name__}({spec.input_size}, {spec.hidden_size}{shown})"
