"""The kernel objects, one set per instruction set, hold nothing the linker could mix up.

A weak symbol (an inline function outside the anonymous namespace, a template of the standard
library) would be merged into one copy, perhaps the AVX-512 one, for all; an .init_array would run
code of every instruction set at load. FASTRNN_KERNEL_OBJECTS names the folder of a CMake build.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = os.environ.get("FASTRNN_KERNEL_OBJECTS")

if not FOLDER:
    pytest.skip("FASTRNN_KERNEL_OBJECTS is not set", allow_module_level=True)

FILES = sorted(Path(FOLDER).rglob("*.o"))
OBJECTS = {
    path: match[1]
    for path in FILES
    if (match := re.search(r"fastrnn_kernels_(\w+)", path.as_posix()))
}
CORE = [path for path in FILES if re.search("fastrnn_(base|shared|static)", path.as_posix())]
each = pytest.mark.parametrize("path", OBJECTS, ids=OBJECTS.values())


def tool(name, *arguments):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([name, *arguments], check=True, capture_output=True, text=True).stdout


def test_there_are_objects():
    assert OBJECTS and CORE, f"no objects of fastrnn_kernels_* and the core below {FOLDER}"


@each
def test_no_weak_symbol(path):
    symbols = [line.split() for line in tool("nm", str(path)).splitlines()]
    weak = [symbol[-1] for symbol in symbols if symbol[-2] in "WVu"]
    assert not weak


@each
def test_one_way_in(path):
    """the only symbol the rest of the library sees is the table of this instruction set"""
    symbols = [
        line.split() for line in tool("nm", "-C", "--defined-only", "-g", str(path)).splitlines()
    ]
    names = [" ".join(symbol[2:]) for symbol in symbols]
    assert len(names) == 1 and OBJECTS[path] in names[0], names


@each
def test_nothing_is_called_outside(path):
    """no libm, no allocation, no exceptions, no OpenMP; the compiler may want memcpy and memset"""
    names = [line.split()[-1] for line in tool("nm", "-u", str(path)).splitlines()]
    harmless = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    assert set(names) <= harmless


@each
def test_nothing_runs_at_load(path):
    assert not re.search(r"\.(init_array|ctors)", tool("objdump", "-h", str(path)))


@pytest.mark.parametrize("path", CORE, ids=[path.name for path in CORE])
def test_no_child_waits_for_a_static(path):
    """a child forked while another thread makes a function's static would wait for ever (Once)"""
    assert "guard variable" not in tool("nm", "-C", str(path))
