"""What is copied while another thread changes weights: of one moment, before or after.

Each test holds a thread in the middle of a change. A copy begun then must wait for its end.
"""

import copy
import pickle
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import fastrnn
from fastrnn import optim
from support import Net, rejects

NET = Net("lstm", 3, 5, layers=2)
MAKERS = {"lstm": NET.build, "linear": lambda: fastrnn.Linear(3, 5)}
each_module = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def of_file(save, path, read=fastrnn.load):
    save(path)
    return read(path)


COPIES = {  # copy(module, path): its weights by name
    "state_dict": lambda module, _: module.state_dict(),
    "save": lambda module, path: of_file(module.save, path).state_dict(),
    "save_several": lambda module, path: of_file(
        lambda to: fastrnn.save(to, {"m": module}), path
    )["m"].state_dict(),
    "pickle": lambda module, _: pickle.loads(pickle.dumps(module)).state_dict(),
    "copy": lambda module, _: copy.copy(module).state_dict(),
    "deepcopy": lambda module, _: copy.deepcopy(module).state_dict(),
}  # fmt: skip
each_copy = pytest.mark.parametrize("take", COPIES.values(), ids=COPIES)


@contextmanager
def halfway(change):
    """change(pause) in a thread that waits inside pause() until this block has ended"""
    there, go_on, errors = threading.Event(), threading.Event(), []

    def pause():
        there.set()
        assert go_on.wait(30)

    def body():
        try:
            change(pause)
        except BaseException as error:
            errors.append(error)
            there.set()

    thread = threading.Thread(target=body)
    thread.start()
    assert there.wait(30)
    try:
        yield
    finally:
        go_on.set()
        thread.join(30)
    assert not errors and not thread.is_alive(), errors


def begun(work):
    """what ends the wait for work(), begun in a thread of its own, and returns its result"""
    results, errors = [], []

    def body():
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(0.1)  # time to be wrong in: right or not, it has nothing else to wait for

    def end():
        thread.join(30)
        assert not thread.is_alive() and not errors, errors
        return results[0]

    return end


def fill(module, value, pause=lambda: None):
    """give all weights this value, with a pause in the middle"""
    with module.edit() as weights:
        for k, weight in enumerate(weights.values()):
            if k == len(weights) - 1:
                pause()
            weight[...] = value


def values(weights):
    return {float(v) for w in weights.values() for v in np.unique(w)}


@each_module
@each_copy
def test_a_copy_waits_for_an_edit(make, take, tmp_path):
    module = make()
    fill(module, 1)
    with halfway(lambda pause: fill(module, 2, pause)):
        end = begun(lambda: take(module, tmp_path / "file"))
    assert values(end()) == {2}


@each_module
@each_copy
def test_a_copy_inside_the_edit_is_of_that_moment(make, take, tmp_path):
    module, seen = make(), []
    fill(module, 1)
    fill(module, 2, lambda: seen.append(values(take(module, tmp_path / "file"))))
    assert seen == [{1, 2}]


@each_module
def test_a_pickle_being_written_does_not_change(make):
    """nor do the buffers that a pickle leaves to its caller"""
    module, buffers = make(), []
    fill(module, 1)
    data = pickle.dumps(module, 5, buffer_callback=buffers.append)
    fill(module, 2)
    assert values(pickle.loads(data, buffers=buffers).state_dict()) == {1}


def test_writing_a_file_holds_no_edit_up(tmp_path, monkeypatch):
    """a slow disk would stall training else"""
    module = NET.build()
    fill(module, 1)
    write = fastrnn._module.write

    def slow(*content, **options):
        begun(lambda: fill(module, 2))()
        write(*content, **options)

    monkeypatch.setattr(fastrnn._module, "write", slow)
    module.save(tmp_path / "file")
    assert values(fastrnn.load(tmp_path / "file").state_dict()) == {1}
    assert values(module.state_dict()) == {2}


def ones_for(opt):
    """gradients"""
    return [{name: np.ones_like(w) for name, w in m.parameters().items()} for m in opt.modules]


@pytest.mark.parametrize("take", ["state_dict", "pickle", "copy", "deepcopy"])
def test_an_optimizers_copy_waits_for_its_step(take, monkeypatch):
    """whose weights and memory have changed, but not yet its number"""
    how = {
        "state_dict": lambda opt: opt.state_dict(),
        "pickle": lambda opt: pickle.loads(pickle.dumps(opt)).state_dict(),
        "copy": lambda opt: copy.copy(opt).state_dict(),
        "deepcopy": lambda opt: copy.deepcopy(opt).state_dict(),
    }[take]
    opt = optim.Adam([NET.build(), fastrnn.Linear(5, 2)])
    ones = ones_for(opt)
    opt.step(ones)
    update = optim.Adam._update

    def step(pause):
        def early(self, *given):
            update(self, *given)
            pause()

        monkeypatch.setattr(optim.Adam, "_update", early)
        opt.step(ones)

    with halfway(step):
        end = begun(lambda: how(opt))
    state = end()
    assert state["steps"] == 2
    means = [a for m in state["memory"] for name, a in m.items() if name.endswith(".mean")]
    assert len({float(v) for a in means for v in np.unique(a)}) == 1, "each after two steps"


def test_an_optimizers_state_inside_an_edit():
    """while a step in another thread waits for the end of the edit: that of before the step"""
    first, second = NET.build(), fastrnn.Linear(5, 2)
    opt = optim.Adam([first, second])
    ones = ones_for(opt)
    with second.edit():
        end = begun(lambda: opt.step(ones))
        assert opt.state_dict()["steps"] == 0
    end()
    assert opt.state_dict()["steps"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_a_step_that_waits_holds_nobody_up(order):
    """who edits one of its modules may use the others inside; else each would wait for the other"""
    modules = [NET.build(), fastrnn.Linear(5, 2), fastrnn.Linear(2, 1)]
    opt = optim.SGD([modules[k] for k in order], lr=1.0)
    for module in modules:
        fill(module, 1)
    with modules[0].edit() as weights:
        end = begun(lambda: opt.step(ones_for(opt)))
        for other in modules[1:]:
            assert values(begun(other.state_dict)()) == {1}
        for w in weights.values():
            w[...] = 3
    end()
    assert [values(m.state_dict()) for m in modules] == [{2}, {0}, {0}]


def test_an_option_assigned_while_a_step_waits_is_that_of_the_step():
    module = fastrnn.Linear(2, 3, seed=0)
    optimizer = optim.SGD(module, lr=0.1)
    gradients = {name: np.ones_like(w) for name, w in module.parameters().items()}
    fill(module, 1)
    with halfway(lambda pause: fill(module, 1, pause)):
        end = begun(lambda: optimizer.step(gradients))
        optimizer.lr = 0.5
    end()
    assert optimizer.lr == 0.5
    assert values(module.parameters()) == {0.5}


@pytest.mark.parametrize("take", ["state_dict", "pickled layer"])
def test_arrays_of_ones_own_wait_for_a_step(take, monkeypatch):
    """theirs and the layer's beside them"""
    own, layer = {"a": np.zeros(3), "b": np.zeros(2)}, fastrnn.Linear(2, 3, dtype=np.float64)
    fill(layer, 0)
    opt = optim.SGD([own, layer], lr=1.0)
    update = optim.SGD._update

    def step(pause):
        def late(self, *given):
            pause()
            update(self, *given)

        monkeypatch.setattr(optim.SGD, "_update", late)
        opt.step(ones_for(opt))

    with halfway(step):
        if take == "state_dict":
            end = begun(opt.modules[0].state_dict)
        else:
            end = begun(lambda: pickle.loads(pickle.dumps(layer)).state_dict())
    assert values(end()) == {-1}


def test_a_step_waits_for_an_edit_of_ones_own_arrays():
    own, layer = {"a": np.ones(3), "b": np.ones(2)}, fastrnn.Linear(2, 3)
    fill(layer, 1)
    opt = optim.SGD([layer, own], lr=1.0)
    with opt.modules[1].edit() as arrays:
        end = begun(lambda: opt.step(ones_for(opt)))
        assert values(begun(layer.state_dict)()) == {1}, "it holds nobody up meanwhile"
        arrays["a"][...] = 3
        arrays["b"] = np.full(2, 3.0)
    end()
    assert values(own) == {2} and values(layer.state_dict()) == {0}


def test_an_array_replaced_while_a_step_waits():
    """is found before anything has changed"""
    own, layer = {"a": np.ones(3)}, fastrnn.Linear(2, 3)
    fill(layer, 1)
    opt = optim.SGD([layer, own], lr=1.0)
    y, tape = layer.forward(np.ones((1, 2), np.float32))

    def hold(pause):
        with opt.modules[1].edit():
            pause()

    def refused():
        with rejects(ValueError, "modules[1]: expected the arrays", "differing in a;"):
            opt.step(ones_for(opt))

    with halfway(hold):
        end = begun(refused)
        own["a"] = np.ones(3)
    end()
    layer.backward(tape, y)  # the tape is still good
    assert opt.state_dict()["steps"] == 0 and values(layer.state_dict()) == values(own) == {1}
