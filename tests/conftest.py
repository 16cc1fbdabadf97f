"""Fixtures: `isa` runs a test once for every instruction set this CPU has (or the forced one)."""

import itertools
import os
import sys
import zlib

import hypothesis
import numpy as np
import pytest

from fastrnn import _core, _safetensors


def with_fma():
    """the instruction sets of this CPU that promise the same bits"""
    before, found = _core.isa(), []
    for name in _core.isas():
        _core.set_isa(name)
        found += [name] if _core.has_fma() else []
    _core.set_isa(before)
    return found


FORCED = os.environ.get("FASTRNN_ISA")
ISAS = [FORCED] if FORCED else _core.isas()
EQUAL_ISAS = with_fma()  # whichever is forced
FMA_ISAS = [name for name in ISAS if name in EQUAL_ISAS]

COMMON = dict(
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,  # `isa` is the same for all examples
        hypothesis.HealthCheck.too_slow,
    ],
)
# A failure is found again by running the tests again.
hypothesis.settings.register_profile("fastrnn", derandomize=True, **COMMON)
# --hypothesis-profile=random: other examples each time. A failure prints how to have it again, and
# --hypothesis-seed, where it was given, draws all of them again.
hypothesis.settings.register_profile("random", derandomize=False, print_blob=True, **COMMON)
hypothesis.settings.load_profile("fastrnn")


@pytest.fixture(autouse=True)
def drawn_again(request, monkeypatch):
    """what a test draws without a seed is the same at every run, but for the profile `random`"""
    if request.config.getoption("hypothesis_profile", None) == "random":
        return
    test, draws = zlib.crc32(request.node.nodeid.encode()), itertools.count()
    default_rng = np.random.default_rng

    def of_this_test(seed=None):
        return default_rng([test, next(draws)] if seed is None else seed)

    monkeypatch.setattr(np.random, "default_rng", of_this_test)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(test)


def use(name):
    before = _core.isa()
    _core.set_isa(name)
    yield name
    _core.set_isa(before)


@pytest.fixture(params=ISAS)
def isa(request):
    yield from use(request.param)


@pytest.fixture(params=FMA_ISAS or [pytest.param("", marks=pytest.mark.skip("no FMA here"))])
def fma_isa(request):
    yield from use(request.param)


@pytest.fixture
def one_thread_of_torch():
    """its threads spin for a while after their work, on the cores that the library needs"""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["package", "plain"])
def reader(request, monkeypatch):
    """with the safetensors package and without it"""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "safetensors", None)
    else:
        pytest.importorskip("safetensors")
    assert _safetensors._package() == (request.param == "package")
    return request.param


measured_ulps = pytest.StashKey[list]()


@pytest.fixture
def report_ulp(request):
    """report_ulp(isa, function, dtype, worst, where, contract) adds a row to the closing table"""
    return lambda *row: request.config.stash.setdefault(measured_ulps, []).append(row)


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(measured_ulps, [])
    if rows:
        terminalreporter.section("largest errors of the elementary functions, in ULP")
    for isa, function, dtype, worst, where, contract in rows:
        terminalreporter.write_line(
            f"{isa:10} {function:10} {dtype:8} {worst:6.3f} at {where:<24} (contract {contract})"
        )
