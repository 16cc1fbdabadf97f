"""pytest bench/: one pytest-benchmark group a case, one test a library.

The ratios of docs/performance.md come from `python -m bench`, which times libraries in turn; here
they run one after the other, which is good for comparing one library with its own past.
"""

from __future__ import annotations

from functools import lru_cache, partial
from time import sleep

import pytest

from bench import checking, problem, roofline
from bench.cases import TABLE, Case
from bench.libraries import Prepared, available
from bench.timing import Plan


@lru_cache(maxsize=1)  # the tests of a case follow each other
def prepared(case: Case) -> dict[str, Prepared]:
    return checking.prepare_all(case)


@lru_cache(maxsize=1)
def limits() -> roofline.Limits:
    return roofline.probe()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `cases(group, ...)` runs for every case of the groups and each library."""
    marker = metafunc.definition.get_closest_marker("cases")
    if marker:
        installed = available()
        pairs = [
            pytest.param(case, name, id=f"{case.name}-{name}")
            for case in TABLE
            for name in case.peers
            if case.group in marker.args and name in installed
        ]
        metafunc.parametrize(("case", "library"), pairs)


@pytest.fixture
def time(benchmark, case: Case, library: str):
    """Times the library's call, checked against the others before."""
    benchmark.group = case.name
    run = prepared(case)[library].run

    def timed() -> None:
        sleep(Plan().rest)  # the last library's threads stop spinning
        if case.pause:
            benchmark.pedantic(run, setup=partial(sleep, case.pause), rounds=Plan().calls)
            return  # the limits are those of warm caches
        benchmark(run)
        if library == "fastrnn" and benchmark.stats:
            floor = roofline.floor(case, problem.make(case).live, limits())
            benchmark.extra_info["share_of_limit"] = floor / benchmark.stats.stats.median

    return timed
