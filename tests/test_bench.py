"""The benchmarks' tables, without timing anything: they are what the kept results say."""

from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

if not (ROOT / "bench").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)

from bench import readme, report, sample, test_speed  # noqa: E402
from bench.__main__ import Place  # noqa: E402
from bench.cases import TABLE, select  # noqa: E402

PLACES = [Place(), Place(machine="zen-5"), Place(machine="emerald-rapids")]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.page.name)
def test_pages_are_what_the_results_say(place):
    """Else: python -m bench --update, or write report.page() where its words changed."""
    assert place.page.read_text() == report.page(place.kept())


def test_the_readme_has_the_rows_of_the_results():
    text = (ROOT / "README.md").read_text()
    assert readme.fill(text, PLACES[0].kept()) == text
    emptied = readme.fill(text, {"rows": []})
    assert emptied.count("\n| ") < text.count("\n| ")  # the marks are there


def test_every_machine_has_its_page():
    results = {path.stem.removeprefix("results") for path in (ROOT / "bench").glob("results*.json")}
    pages = {p.stem.removeprefix("performance") for p in (ROOT / "docs").glob("performance*.md")}
    assert results == pages == {place.results.stem.removeprefix("results") for place in PLACES}


def test_pytest_times_every_group():
    tests = [t for name, t in vars(test_speed).items() if name.startswith("test_")]
    groups = [group for t in tests for mark in t.pytestmark for group in mark.args]
    assert sorted(groups) == sorted({case.group for case in TABLE})


def test_every_case_has_one_name_and_is_chosen_by_it():
    names = [case.name for case in TABLE]
    assert sorted(set(names)) == sorted(names)
    for case in TABLE:
        assert case in select(case.name) and case.target > 0, case.name
    assert set(readme.CASES) <= set(names)
    with pytest.raises(ValueError, match="cases: none matches 'nothing'"):
        select("nothing")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.page.name)
def test_every_row_is_of_a_case(place):
    rows = [row["case"] for row in place.kept()["rows"]]
    assert sorted(set(rows)) == sorted(rows)
    assert set(rows) <= {case.name for case in TABLE}


def test_a_ratio_that_its_times_do_not_have_is_marked():
    row = {
        "case": "training-lstm-T9-B1-H8", "group": "training", "target": 2.0, "target_share": 0,
        "best": "torch", "seconds": {"fastrnn": [1.0, 2.0, 3.0], "torch": [8.0, 8.0, 6.0]},
        "median": {"fastrnn": 2.0, "torch": 8.0}, "ratio": 4.0,
    }  # fmt: skip
    assert report.disputed(row, "torch") == ""  # 8, 4, 2: as 8 / 2
    assert report.disputed(row, "jax") == ""
    row["seconds"]["torch"] = [8.0, 10.0, 6.0]  # 8, 5, 2
    assert report.disputed(row, "torch") == "‡"
    assert "| 5.00‡ (2.00) |" in report._peers([row | {"ratio": 5.0}])


def test_marks_and_digits():
    row = {"seconds": {"fastrnn": [1.0, 1.3], "torch": [1.0, 1.5]}}
    assert (report.unsteady(row), report.unsteady(row, "torch")) == ("", "†")
    shown = [report.short(seconds) for seconds in (2.4e-7, 1.23e-5, 0.0123, None)]
    assert shown == ["0.24", "12.3", "12,300", "–"]
    assert report.against(1.994, 2.0) == "1.99 (2.00) *"
    assert report.against(0.84, 0.9, "%") == "84% (90%) *"
    assert report.against(1.2, 0, "%") == "> 100%"


def test_the_readme_marks_what_the_page_marks():
    row = {"case": readme.CASES[0], "group": "stream", "median": {"fastrnn": 1e-6, "torch": 3e-6}}
    steady = row | {"seconds": {"fastrnn": [1e-6, 1.1e-6]}}
    torn = row | {"seconds": {"fastrnn": [1e-6, 1.5e-6]}}
    empty = "<!-- speed -->\n<!-- /speed -->"
    assert "†" not in readme.fill(empty, {"rows": [steady]})
    found = readme.fill(empty, {"rows": [torn]})
    assert "| **1.00**† | 3.00 |" in found and "\n\n† The slowest round" in found


@pytest.mark.parametrize("training", [False, True])
def test_shapes_drawn_at_random_are_those_of_their_seed(training):
    """and few enough of them come twice for a cliff to be found"""
    first, again, other = (list(islice(sample.drawn(n, training), 200)) for n in (1, 1, 2))
    assert first == again != other
    assert len({case.name for case in first}) > 190
    assert all(case.training is training and case.beside is None for case in first)
    assert {case.cell for case in first} == {"lstm", "gru", "rnn"}
