"""What is installed, and what it runs on."""

from __future__ import annotations

import platform
from typing import TypedDict

import numpy as np

from . import _core, _threads


class Info(TypedDict):
    """What `info` returns."""

    version: str
    isa: str
    isas: list[str]
    isas_compiled: list[str]
    threads: int
    cores: int
    openmp: bool
    compiler: str
    build_type: str
    options: list[str]
    python: str
    numpy: str
    platform: str


def info() -> Info:
    """Return what decides speed and belongs in a bug report.

    Keys: version; isa, the instruction set that layers made from now on use (the best of this
    CPU, or the one FASTRNN_ISA names); isas, all that this CPU could use, best first;
    isas_compiled, all in this build; threads, that a call uses at most; cores, that this process
    may use; openmp, compiler, build_type and options of the build; python, numpy, platform.
    """
    build = _core.build_info()
    return {
        "version": build["version"],
        "isa": _core.isa(),
        "isas": _core.isas(),
        "isas_compiled": build["isas_compiled"],
        "threads": _threads.get_num_threads(),
        "cores": _core.available_threads(),
        "openmp": build["openmp"],
        "compiler": build["compiler"],
        "build_type": build["build_type"],
        "options": build["options"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
