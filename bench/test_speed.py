"""Times, every group of cases.py. Nothing here asserts on time."""

import pytest


@pytest.mark.cases("stream")
def test_stream(time):
    time()


@pytest.mark.cases("sequence", "batch", "halved")
def test_inference(time):
    time()


@pytest.mark.cases("rows", "single")
def test_one_step_of_many_rows(time):
    time()


@pytest.mark.cases("training")
def test_training(time):
    time()


@pytest.mark.cases("pauses")
def test_after_pauses(time):
    time()


@pytest.mark.cases("torch")
def test_inside_torch(time):
    time()


@pytest.mark.cases("odd", "denormals", "threads")
def test_one_library(time):
    time()
