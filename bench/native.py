"""The step from C++: builds bench/cpp against the library inside the package, and runs it.

The figures beside it are RTNeural's as published, for layers whose sizes are known when they are
compiled (its fastest kind). They are of another machine: beside ours, not a ratio.

When every row is slower by the same amount, look at the pages before the code: the library once
took 124 ns (H16) run after run where a byte for byte copy of its file took 79. A virtual machine's
pages are not all alike; new ones come with a copy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent / "cpp"
RTNEURAL = {(1, 16): 96, (1, 20): 256, (1, 32): 192, (1, 40): 428, (64, 64): 1275}
TARGET = {(1, 16): 75, (1, 20): 110, (1, 32): 140, (1, 40): 250, (64, 64): 1230}


def measure(seconds: float = 3.0) -> list[dict[str, Any]]:
    """A row a size, or none (and a line that says so) without CMake or without the library."""
    if shutil.which("cmake") is None:
        print("C++ step: skipped, there is no cmake", file=sys.stderr)
        return []
    module = [sys.executable, "-m", "fastrnn", "cmake-dir"]
    package = subprocess.run(module, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as build:
        for command in (
            ["cmake", "-S", str(SOURCE), "-B", build, f"-Dfastrnn_DIR={package}"],
            ["cmake", "--build", build, "--config", "Release"],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = subprocess.run(
            [str(Path(build) / "fastrnn_step"), str(seconds)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    return [json.loads(line) for line in found.stdout.splitlines()]
