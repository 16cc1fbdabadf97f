"""Peak memory of one training step, each library in a process of its own: python -m bench.memory

The peak is the kernel's (VmHWM, Linux), reset after everything that is not the step's own: the
weights, the input, dy, and a first step of two time steps that loads code and starts threads.
glibc keeps freed memory for later, where the step would find it without raising the peak (the first
version of this file saw an RNN's step take 4 bytes a unit): blocks above 64 KiB are mapped one by
one instead, so that they come and go with the arrays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

from bench.cases import Case, select
from bench.libraries import available, prepare
from bench.problem import make

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
GLIBC = {"MALLOC_MMAP_THRESHOLD_": str(64 << 10), "MALLOC_TRIM_THRESHOLD_": "0"}
CASES = tuple(f"training-{cell}-T100-B64-H256" for cell in ("lstm", "gru", "rnn"))


def growth(library: str, case: Case) -> int:
    """Bytes by which a training step raises this process's peak."""
    prepare(library, make(replace(case, T=2))).run()
    step = prepare(library, make(case)).run
    RESET.write_text("5")
    before = _kib("VmHWM")
    kept = step()  # a training loop holds on to the results, so they count
    after = _kib("VmHWM")
    del kept
    return (after - before) << 10


def _kib(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def measure() -> list[dict[str, Any]]:
    if not RESET.exists():
        return []
    rows = []
    for case in (select(name)[0] for name in CASES):
        for library in (name for name in case.peers if name in available()):
            command = [sys.executable, "-m", "bench.memory", library, case.name]
            child = subprocess.run(command, check=True, stdout=PIPE, env=os.environ | GLIBC)
            used = int(child.stdout)
            each = used / (case.T * case.B * case.H)
            rows.append({"case": case.name, "library": library, "bytes": used, "each": each})
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(growth(sys.argv[1], select(sys.argv[2])[0]))
    else:
        print(json.dumps(measure(), indent=1))
