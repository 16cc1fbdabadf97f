"""What a table of times has to name: the machine and the versions."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

from bench.libraries import available


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in available().items())
    found = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "processor": f"{processor()}, {cores()} cores usable",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }
    if find_spec("fastrnn"):
        from fastrnn import _core

        build = _core.build_info()
        found["instruction set"] = f"{_core.isa()}, compiled by {build['compiler']}"
    return found
