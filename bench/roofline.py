"""What the machine allows: the floor of a case, and the share of it that was reached.

    floor = max(flops / peak, steps * weight bytes of a step / bandwidth of the level they fit in)

peak and bandwidths are measured on the spot by fastrnn._core.probe(). A step reads the recurrent
weights (where it is the only one all weights: there is nothing to hoist). The cores can share a
step in three ways and the floor is the best of them: one core does everything; each core takes some
rows and reads all weights; each core takes some units and its part of the weights, for the price of
handing the state over at every step. Training is three times the forward's flops (forward, gradient
of the input, gradient of the weights) and reads the recurrent weights up and down; that of a single
step writes as many bytes of gradients besides.

Not counted: elementwise functions, tape and output traffic, the call itself. So a share of 1 is out
of reach for tiny steps.

A share above 1 is possible. Weights that are larger than a cache are counted as if all of them came
from the level behind it, but a part of them is still in the cache from the step before (one row
walks them backwards at every other step to that end), and that part is read faster: a core that
reads 4 MB a step with 2 MB of second-level cache may find nearly half of them there. The probe may
also have seen less than the machine can do.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

from bench.cases import GATES, Case

HANDOVER = 2e-7  # seconds: a cache line's way to the other core and one back, about 100 ns each
FALLBACK = {"l1": 32 << 10, "l2": 1 << 20}


@dataclass(frozen=True)
class Limits:
    """One core's flops and bytes a second (float32), and all cores' where they share."""

    flops: float
    flops_all: float
    l1: float
    l2: float
    l3: float
    l3_all: float

    def bandwidth(self, size: float, cores: int) -> float:
        """Of `cores` cores that each read `size` bytes again and again, together."""
        sizes = cache_sizes()
        if size <= sizes["l1"]:
            return self.l1 * cores
        if size <= sizes["l2"]:
            return self.l2 * cores
        return self.l3 if cores == 1 else self.l3_all

    def at_least(self, known: Limits) -> Limits:
        """The larger of each: who else computes at the moment can only make one look smaller."""
        pairs = zip(astuple(self), astuple(known), strict=True)
        return Limits(*(max(pair) for pair in pairs))

    def peak(self, cores: int, dtype: str) -> float:
        both = self.flops if cores == 1 else self.flops_all
        return both if dtype == "float32" else both / 2


def probe() -> Limits:
    from fastrnn import _core

    tries = [_core.probe() for _ in range(3)]  # the best: others can only slow it down
    names = ("fma_gflops", "fma_gflops_all", "l1_gbs", "l2_gbs", "l3_gbs", "l3_gbs_all")
    return Limits(*(max(found[name] for found in tries) * 1e9 for name in names))


def missing_cores(limits: Limits) -> float:
    """Cores that the machine does not give at the moment, by the peak of all of them together."""
    from fastrnn import _core

    cores = limits.flops_all / limits.flops
    return cores * (1 - _core.peak() * 1e9 / limits.flops_all)


def cache_sizes() -> dict[str, int]:
    """Bytes of the first core's data caches."""
    found = dict(FALLBACK)
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level = "l" + (index / "level").read_text().strip()
        if (index / "type").read_text().strip() != "Instruction" and level in found:
            found[level] = int((index / "size").read_text().strip().removesuffix("K")) << 10
    return found


def matrices(case: Case) -> tuple[int, int]:
    """Numbers in the input weights and in the recurrent weights, of all layers and directions."""
    rows, wide = GATES[case.cell] * case.H, case.directions * case.H
    inputs = case.inputs + (case.layers - 1) * wide
    return case.directions * rows * inputs, case.directions * case.layers * rows * case.H


def flops(case: Case, live: int) -> float:
    """Of `live` rows times steps; two for each multiply-add."""
    return 2.0 * live * sum(matrices(case)) * (3 if case.training else 1)


def floor(case: Case, live: int, limits: Limits) -> float:
    """Seconds. `live` counts the rows of all steps (ragged ones stop early)."""
    hoisted, recurrent = matrices(case)
    numbers = hoisted + recurrent if case.T == 1 else recurrent
    width = 8 if case.dtype == "float64" else 2 if case.bfloat16 and case.B == 1 else 4
    sweeps = (3 if case.T == 1 else 2) if case.training else 1
    work = flops(case, live)

    def bound(cores: int, readers: int, size: float, handovers: int) -> float:
        """`readers` of the cores read `size` bytes each at each of the T steps."""
        reading = size * readers * case.T * sweeps / limits.bandwidth(size, readers)
        return max(work / limits.peak(cores, case.dtype), reading) + handovers * HANDOVER

    size, cores = numbers * width, case.threads
    ways = [bound(1, 1, size, 0)]
    if cores > 1:
        ways.append(bound(cores, cores, size / cores, 0 if free(case) else case.T * sweeps))
        if cores <= case.B:
            ways.append(bound(cores, cores, size, 0))
        if case.T > 1:  # one core multiplies the inputs while another walks the steps
            ways.append(bound(2, 1, size, 0))
    return min(ways)


def free(case: Case) -> bool:
    """Whether the weights can be split without a handover: a direction for each core."""
    return case.directions >= case.threads
