"""The rule of the layers: an include points to the same or a lower layer, and what each may use.

docs/design.md says why: layers 0 to 2 are compiled once per instruction set, and whatever the
linker could merge between those copies may hand AVX-512 code to a machine without it.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "cpp"

if not ROOT.is_dir():
    pytest.skip("the C++ sources are not here", allow_module_level=True)

FILES = sorted(p for p in ROOT.rglob("*") if p.suffix in {".h", ".hpp", ".cpp"})
NAMES = [p.relative_to(ROOT).as_posix() for p in FILES]

LAYERS = [  # the first pattern that matches counts
    (r"simd/", 0),
    (r"cells/|gemm/|optim/|tasks\.h$", 1),
    (r"sweep/", 2),
    (r"backend\.h$|kernels\.cpp$|registry\.", 3),
    (r"system/", 4.1),
    (r"threads/", 4.2),
    (r"plan/", 4.3),
    (r"network/", 4.4),
    (r"file/|stream\b.*|pool\b.*|include/|tests/", 4.5),
    (r"python/|api/", 5),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

# What the kernels may take from the system: types and constants, nothing with code in it.
PLAIN_HEADERS = {"stddef.h", "stdint.h", "float.h", "limits.h", "string.h"}
PLAIN_HEADERS |= {"cstddef", "cstdint", "cfloat", "climits", "cstring", "limits", "type_traits"}
VECTOR_CODE = re.compile(
    r"vector_size|<(?:[a-z]*intrin|arm_neon|arm_sve)\.h>|\b_mm\d*_\w+|\bv\w+q_[fsu]\d+|__m\d{3}"
)


def layer_of(name):
    for pattern, layer in LAYERS:
        if re.match(pattern, name):
            return layer
    return None


def text_of(name):
    return (ROOT / name).read_text()


def includes_of(name):
    return [(kind == '"', path) for kind, path in INCLUDE.findall(text_of(name))]


def resolve(name, path):
    """the included file of this project: beside the including one, or from the root"""
    for base in ((ROOT / name).parent, ROOT, ROOT / "include"):
        if (base / path).is_file():
            return (base / path).resolve().relative_to(ROOT).as_posix()
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_a_layer(name):
    assert layer_of(name) is not None, "put it into a folder of the design, or amend LAYERS"


@pytest.mark.parametrize("name", NAMES)
def test_includes_point_down(name):
    for quoted, path in includes_of(name):
        target = resolve(name, path)
        if target is None:
            assert not quoted or path.endswith(".inc"), f"{path} is not found"  # .inc: by CMake
        else:
            assert layer_of(target) <= layer_of(name), f"{name} includes {target}"


@pytest.mark.parametrize("name", [n for n in NAMES if layer_of(n) in (4.1, 4.2)])
def test_system_and_threads_know_no_network(name):
    targets = {resolve(name, path) for _, path in includes_of(name)} - {None}
    assert all(target.startswith(("system/", "threads/")) for target in targets), targets


@pytest.mark.parametrize("name", [n for n in NAMES if layer_of(n) in (0, 1, 2)])
def test_kernels_use_nothing_that_links(name):
    system = {path for quoted, path in includes_of(name) if resolve(name, path) is None}
    intrinsics = {path for path in system if path.endswith("intrin.h") or path == "arm_neon.h"}
    assert system - intrinsics <= PLAIN_HEADERS
    code = COMMENT.sub("", text_of(name))
    assert not re.search(r"\b(throw|try|catch|new|malloc|dynamic_cast|thread_local)\b", code)
    assert not re.search(r"#\s*pragma\s+omp|\bstd::(vector|string|function|map|thread)\b", code)
    assert re.search(r"^namespace \{", code, re.MULTILINE) or name.endswith("tasks.h"), (
        "everything lives in an anonymous namespace"
    )


def test_the_name_of_the_kernels_tells_all_that_they_are_made_from():
    """the library of kernels in a wheel is named by a hash"""
    hashed = re.search(r"GLOB kernel_sources CONFIGURE_DEPENDS ([^)]*)", text_of("CMakeLists.txt"))
    folders = {n.split("/")[0] for n in NAMES if layer_of(n) in (0, 1, 2) and "/" in n}
    assert set(hashed[1].split()) == {f"{folder}/*.h" for folder in folders}


@pytest.mark.parametrize("name", [n for n in NAMES if layer_of(n) != 0])
def test_only_simd_knows_vectors(name):
    found = VECTOR_CODE.search(COMMENT.sub("", text_of(name)))
    assert not found, found and found[0]


@pytest.mark.parametrize("name", [n for n in NAMES if "python/" in n])
def test_bindings_hold_no_numerics(name):
    used = {path for _, path in includes_of(name)}
    assert not used & {"cmath", "math.h", "immintrin.h"}
    kernels = ("cells/", "gemm/", "optim/", "simd/", "sweep/")
    assert not any(path.startswith(kernels) for path in used)


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_short(name):
    assert len(text_of(name).splitlines()) <= 330
