"""What is measured: one row a case, and the ratio it has to reach.

A target is the least ratio (time of the best peer / our time). Where no figure was promised it
is 1: nowhere slower than anybody. `beside` names a second case of the same library instead of
peers: an odd size beside the next multiple of 16, denormal values beside ordinary ones, two
threads beside one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
INFERENCE = ("fastrnn", "numpy", "torch", "onnxruntime", "openvino", "jax")
TRAINING = ("fastrnn", "torch", "jax")


@dataclass(frozen=True, kw_only=True)
class Case:
    group: str
    cell: str  # lstm | gru | rnn (tanh)
    T: int
    B: int
    H: int
    I: int = 0
    layers: int = 1
    bidirectional: bool = False
    ragged: bool = False  # lengths uniform in T/5..T
    training: bool = False  # forward, and the gradients of the input and of every weight
    dtype: str = "float32"
    bfloat16: bool = False  # all weights but the biases are, in float32: everybody's
    denormal: bool = False  # inputs shrink to 1e-40 after ten steps, biases are zero
    threads: int = 2
    pause: float = 0.0  # seconds of sleep before each call; 0: one call at the heels of another
    target: float = 1.0  # least ratio to the best peer, or to `beside`
    share: float = 0.0  # least share of the machine's limit
    overhead: float = 0.0  # most microseconds of fastrnn.torch beyond the NumPy way in
    libraries: tuple[str, ...] = ()  # empty: everyone who can

    @property
    def inputs(self) -> int:
        return self.I or self.H

    @property
    def stream(self) -> bool:
        return self.group == "stream" or (self.group in ("pauses", "halved") and self.T == 1)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def peers(self) -> tuple[str, ...]:
        """Who takes part. ONNX Runtime and OpenVINO run float32 inference only; jax has no
        recurrent layer, so it is asked only for what a short lax.scan says."""
        if self.libraries:
            return self.libraries
        names = TRAINING if self.training else INFERENCE
        if self.dtype != "float32":
            names = tuple(n for n in names if n in ("fastrnn", "numpy", "torch"))
        if self.ragged or self.layers > 1 or self.bidirectional:
            names = tuple(n for n in names if n != "jax")
        return names

    @property
    def name(self) -> str:
        extras = {
            f"I{self.I}": self.I,
            f"L{self.layers}": self.layers > 1,
            "bidirectional": self.bidirectional,
            "ragged": self.ragged,
            "training": self.training and self.group not in ("training", "single"),
            self.dtype: self.dtype != "float32",
            "bfloat16": self.bfloat16 and self.group != "halved",
            "denormal": self.denormal,
            f"threads{self.threads}": self.threads != 2,
        }
        shape = f"{self.group}-{self.cell}-T{self.T}-B{self.B}-H{self.H}"
        return "-".join([shape, *(word for word, wanted in extras.items() if wanted)])

    @property
    def beside(self) -> Case | None:
        """The case of the same library this one is held against, if any."""
        if self.group == "odd":
            inputs = round_up(self.I) if self.I else 0
            return replace(self, H=round_up(self.H), I=inputs)
        if self.group == "denormals" and self.denormal:
            return replace(self, denormal=False)
        if self.group == "threads" and self.threads > 1:
            return replace(self, threads=1)
        return None


def round_up(n: int, multiple: int = 16) -> int:
    return -(-n // multiple) * multiple


def sizes(targets: dict[int, float], **common: object) -> Iterator[Case]:
    """One case for each hidden size, with its target."""
    for hidden, target in targets.items():
        yield Case(H=hidden, target=target, **common)  # type: ignore[arg-type]


def stream() -> Iterator[Case]:
    step = dict(group="stream", T=1, B=1)
    yield from sizes({32: 12, 64: 6, 128: 3, 256: 1.4, 512: 1.1}, cell="lstm", **step)
    yield from sizes({64: 6, 256: 1.8}, cell="gru", **step)
    yield from sizes({64: 8, 256: 3}, cell="rnn", **step)


def sequence() -> Iterator[Case]:
    one = dict(group="sequence", T=100, B=1)
    yield from sizes({64: 1.8, 128: 1.5, 256: 1.12, 512: 1.03, 1024: 1}, cell="lstm", **one)
    yield from sizes({64: 1.8, 128: 1.5, 256: 1, 512: 1, 1024: 1}, cell="gru", **one)
    yield from sizes({64: 3, 128: 2, 256: 1, 512: 1, 1024: 1}, cell="rnn", **one)
    small = Case(group="sequence", cell="lstm", T=64, B=1, H=32, target=2.2)
    yield small
    yield replace(small, bidirectional=True, target=2.5)
    yield Case(cell="lstm", H=64, layers=2, **one)  # type: ignore[arg-type]
    yield Case(cell="gru", H=128, layers=2, **one)  # type: ignore[arg-type]


def rows() -> Iterator[Case]:
    """One step of many rows, as a policy takes it for its environments or a decoder for a beam."""
    for learning in (False, True):
        common = dict(group="rows", T=1, training=learning)
        yield from sizes({128: 1}, cell="lstm", B=64, **common)
        yield from sizes({32: 1, 256: 1}, cell="lstm", B=256, **common)
        yield from sizes({64: 1}, cell="gru", B=256, **common)
        yield from sizes({256: 1}, cell="rnn", B=256, **common)


def single() -> Iterator[Case]:
    """A step that trains, as who learns sample by sample takes it: of few rows all its time goes
    into bytes."""
    common = dict(group="single", T=1, training=True)
    yield from sizes({64: 1, 256: 1, 512: 1, 1024: 1}, cell="lstm", B=1, **common)
    yield from sizes({256: 1, 512: 1, 1024: 1}, cell="gru", B=1, **common)
    yield from sizes({256: 1, 512: 1, 1024: 1}, cell="rnn", B=1, **common)
    for cell in GATES:
        yield from sizes({512: 1}, cell=cell, B=4, **common)
        yield from sizes({512: 1, 1024: 1}, cell=cell, B=8, **common)
        yield from sizes({1024: 1}, cell=cell, B=64, **common)


def batch() -> Iterator[Case]:
    common = dict(group="batch", T=100)
    yield from sizes({64: 1, 128: 1}, cell="lstm", B=4, **common)
    yield from sizes({128: 1}, cell="gru", B=6, **common)
    yield from sizes({256: 1}, cell="lstm", B=16, share=0.9, **common)
    yield from sizes({512: 1}, cell="lstm", B=16, **common)
    yield from sizes({256: 1, 512: 1}, cell="lstm", B=64, share=0.9, **common)
    for cell in ("gru", "rnn"):
        yield from sizes({256: 1, 512: 1}, cell=cell, B=16, **common)
        yield from sizes({256: 1.2, 512: 1}, cell=cell, B=64, **common)
    for cell in GATES:
        yield from sizes({256: 1}, cell=cell, B=64, ragged=True, **common)
    yield Case(cell="lstm", B=64, H=128, dtype="float64", target=2, **common)


def training() -> Iterator[Case]:
    common = dict(group="training", training=True, T=100)
    yield from sizes({256: 1.2, 512: 1.15}, cell="lstm", B=64, share=0.85, **common)
    yield from sizes({128: 1.2}, cell="lstm", B=16, share=0.85, **common)
    yield from sizes({256: 1, 512: 1}, cell="lstm", B=16, **common)
    yield from sizes({64: 1, 128: 2, 256: 1, 512: 1, 1024: 1}, cell="lstm", B=1, **common)
    yield from sizes({256: 1.6, 512: 1}, cell="gru", B=64, **common)
    yield from sizes({256: 1, 512: 1}, cell="gru", B=16, **common)
    yield from sizes({64: 1, 128: 10, 256: 1, 512: 1}, cell="gru", B=1, **common)
    yield from sizes({256: 1.4, 512: 1}, cell="rnn", B=64, **common)
    yield from sizes({256: 1, 512: 1}, cell="rnn", B=16, **common)
    yield from sizes({64: 1, 128: 4, 256: 1, 512: 1}, cell="rnn", B=1, **common)
    for cell, target in {"lstm": 2.5, "gru": 1.7, "rnn": 1.5}.items():
        yield Case(cell=cell, B=64, H=256, ragged=True, target=target, **common)
    stacked = dict(common, cell="lstm", B=1, layers=2)
    yield Case(H=64, **stacked)  # type: ignore[arg-type]
    yield Case(H=128, **stacked)  # type: ignore[arg-type]
    deep = dict(common, T=200, layers=2, bidirectional=True)
    yield Case(cell="lstm", B=8, H=256, target=1.3, **deep)
    yield Case(cell="lstm", B=64, H=128, dtype="float64", target=2, **common)


def odd() -> Iterator[Case]:
    """Time per useful flop: at most 1.5 times that of the next multiple of 16."""
    common = dict(group="odd", cell="lstm", T=100, libraries=("fastrnn", "numpy"), target=1 / 1.5)
    for rows in (1, 16):
        for hidden in (20, 50, 100, 200, 350):
            yield Case(B=rows, H=hidden, **common)
        for inputs in (1, 13, 40, 161):
            yield Case(B=rows, H=64, I=inputs, **common)


def denormals() -> Iterator[Case]:
    for cell in GATES:
        for learning in (False, True):
            yield Case(
                group="denormals", cell=cell, T=2000, B=1, H=64, training=learning, denormal=True,
                libraries=("fastrnn", "torch"), target=0.95,
            )  # fmt: skip


def threads() -> Iterator[Case]:
    """Our time on one thread over our time on two. Small work stays on one: a ratio of 1."""
    common = dict(group="threads", cell="lstm", T=100, libraries=("fastrnn", "numpy"))
    yield from sizes({64: 1, 256: 1.5, 512: 1.5}, B=1, **common)
    yield from sizes({256: 1.8}, B=16, **common)
    yield from sizes({256: 1.8}, B=64, **common)
    yield from sizes({256: 1.7}, B=64, training=True, **dict(common, libraries=TRAINING[:2]))


def pauses() -> Iterator[Case]:
    """A call every 30 ms, as with frames of speech or a control loop: threads have fallen asleep,
    caches are cold."""
    common = dict(group="pauses", cell="lstm", B=1, pause=0.03)
    yield from sizes({32: 1, 128: 1, 256: 1}, T=1, **common)
    yield from sizes({32: 1, 128: 1, 256: 1}, T=10, **common)
    yield from sizes({64: 1, 128: 1, 256: 1}, T=100, **common)


def halved() -> Iterator[Case]:
    """Weights that are bfloat16, which we read in half the bytes where there is one row."""
    common = dict(group="halved", B=1, bfloat16=True)
    step, sequence = dict(common, T=1), dict(common, T=100)
    yield from sizes(dict.fromkeys((64, 128, 256, 512, 1024), 1), cell="lstm", **step)
    yield from sizes(dict.fromkeys((256, 1024), 1), cell="gru", **step)
    yield from sizes(dict.fromkeys((128, 256, 512, 1024), 1), cell="lstm", **sequence)
    yield from sizes(dict.fromkeys((256, 1024), 1), cell="gru", **sequence)


def inside_torch() -> Iterator[Case]:
    """fastrnn.torch beside torch's own layer, and beside the same kernels called with NumPy."""
    learners = ("fastrnn", "fastrnn.torch", "torch")
    for learning, overhead in ((False, 15), (True, 40)):
        libraries = learners if learning else (*learners, "fastrnn.torch fixed")
        limit = dict(group="torch", libraries=libraries, training=learning)
        for cell in GATES:
            yield Case(cell=cell, T=10, B=1, H=32, overhead=overhead, **limit)
        yield Case(cell="lstm", T=1, B=1, H=32, overhead=overhead, **limit)
        yield Case(cell="lstm", T=10, B=1, H=128, overhead=overhead, **limit)
        # what agents and decoders do
        yield from sizes({512: 1, 1024: 1}, cell="gru", T=1, B=1, **limit)
        yield from sizes({512: 1, 1024: 1}, cell="lstm", T=1, B=4, **limit)
        yield from sizes({512: 1}, cell="gru", T=1, B=16, **limit)
        yield Case(cell="lstm", T=100, B=64, H=256, **limit)
        yield Case(cell="lstm", T=100, B=64, H=256, ragged=True, **limit)


GROUPS = (
    stream, sequence, rows, single, batch, training, halved, odd, denormals, threads, pauses,
    inside_torch,
)  # fmt: skip
TABLE = tuple(case for group in GROUPS for case in group())


def select(pattern: str = "*") -> list[Case]:
    """The cases whose name matches a shell pattern, or contains it."""
    found = [case for case in TABLE if fnmatch(case.name, pattern) or pattern in case.name]
    if not found:
        raise ValueError(f"cases: none matches {pattern!r}; e.g. 'stream*', 'gru', 'training-lstm'")
    return found
