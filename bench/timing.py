"""How a case is timed.

All libraries run in one process, in turn, in blocks: A B C, B C A, C A B, ... so that a machine
that slows down slows them all. Two libraries must not be timed call by call in alternation: each
has its own threads, and those spin for a while after their work is done (libgomp some milliseconds,
OpenBLAS about 30, libiomp 200, ONNX Runtime until its count runs out) and would take the cores from
the next one. So a rest of 0.3 s follows every block, longer than any of them spins, and the first
part of a block is not counted: it wakes the threads, fills the caches and raises the clock.
Nobody's waiting policy is changed by environment variables: OMP_WAIT_POLICY=active would let idle
threads spin for ever, passive would cost torch a futex at every barrier (twice the time at H = 64).

What other processes do during a block is watched: a spin barrier beside one busy neighbour takes
a scheduler's slice instead of a microsecond (seen: 1.6 s for torch's 76 ms): such a block is worth
nothing. So is one during which a virtual machine does not get all its cores, of which it learns
nothing itself (seen: two threads as slow as one, for seconds): after each rest the peak of all
cores is held against the best one. A disturbed block is repeated a few times; what stays disturbed
is marked in the report.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from timeit import Timer

NOISY = 0.2  # cores gone to somebody else: a block measured so is not to be trusted
SPIN = 0.02  # seconds: for longer than plan.missing() leaves threads spinning
SAMPLE = 5e-5  # seconds: short calls are timed several at once


@dataclass(frozen=True)
class Plan:
    rounds: int = 5
    block: float = 0.3
    rest: float = 0.3
    tries: int = 6  # of a block that others disturb
    missing: Callable[[], float] = lambda: 0.0  # cores that the machine does not give now
    pause: float = 0.0  # seconds of sleep before each call
    calls: int = 40  # of a block with pauses


QUICK = Plan(rounds=1, block=0.01, rest=0.02, tries=1, calls=3)


@dataclass
class Measured:
    seconds: dict[str, list[float]] = field(default_factory=dict)  # a median for each round
    others: float = 0.0  # cores that others had meanwhile, at worst

    def time(self, name: str) -> float:
        return median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """Round by round, so that both sides saw the same machine."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return median(a / b for a, b in pairs)


def interleave(runs: dict[str, Callable[[], object]], plan: Plan) -> Measured:
    sleep(plan.rest)
    measured = Measured({name: [] for name in runs})
    names = list(runs)
    for turn in range(plan.rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            seconds, others = undisturbed(runs[name], plan)
            measured.seconds[name].append(seconds)
            measured.others = max(measured.others, others)
    return measured


def undisturbed(run: Callable[[], object], plan: Plan) -> tuple[float, float]:
    """The time of a call, and how many cores others had meanwhile: the calmest of a few tries."""
    tries: list[tuple[float, float]] = []
    while len(tries) < plan.tries and not (tries and tries[-1][0] < NOISY):
        before, start = _others(), perf_counter()
        seconds = after_pauses(run, plan) if plan.pause else block(run, plan.block)
        elapsed = perf_counter() - start
        # ticks are of 10 ms: short blocks say nothing
        busy = (_others() - before) / elapsed if elapsed >= 0.1 else 0.0
        sleep(plan.rest)
        tries.append((max(0.0, busy, plan.missing()), seconds))
        sleep(SPIN)
    busy, seconds = min(tries)
    return seconds, busy


def block(run: Callable[[], object], seconds: float) -> float:
    """Median time of a call, after a warm-up of a third of the block."""
    timer, end = Timer(run), perf_counter() + seconds / 3
    once = timer.timeit(1)
    while perf_counter() < end:
        once = min(once, timer.timeit(1))
    calls = max(1, round(SAMPLE / once))
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < 3 or perf_counter() < end:
        samples.append(timer.timeit(calls) / calls)
    return median(samples)


def after_pauses(run: Callable[[], object], plan: Plan) -> float:
    """Median time of a call that follows a pause; the first one is not counted."""
    samples: list[float] = []
    for _ in range(1 + plan.calls):
        sleep(plan.pause)
        start = perf_counter()
        run()
        samples.append(perf_counter() - start)
    return median(samples[1:])


def _others() -> float:
    """Seconds the cores have worked for other processes (Linux; elsewhere nothing is known)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system = map(int, stat.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - process_time()
