"""torch.func's transforms and forward mode: what torch's own modules do with them."""

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

import fastrnn.torch
from torch_support import CELLS, NAMES, first, numbers, twins

pytestmark = [pytest.mark.usefixtures("one_thread_of_torch")]


def loss(module):
    """of an input and parameters"""

    def run(x, parameters):
        return first(torch.func.functional_call(module, parameters, (x,))).square().sum()

    return run


def dual(module, x, parameters):
    with forward_ad.dual_level():
        y = first(module(forward_ad.make_dual(x, torch.ones_like(x))))
        return forward_ad.unpack_dual(y).tangent


def ones(x):
    """shaped like the output"""
    return torch.ones(*x.shape[:-1], 4)


TRANSFORMS = {
    "grad": lambda m, x, p: torch.func.grad(loss(m), argnums=(0, 1))(x, p),
    "vjp": lambda m, x, p: torch.func.vjp(lambda x: first(m(x)), x)[1](ones(x)),
    "jvp": lambda m, x, p: torch.func.jvp(lambda x: first(m(x)), (x,), (torch.ones_like(x),)),
    "jacrev": lambda m, x, p: torch.func.jacrev(lambda x: first(m(x)))(x),
    "hessian": lambda m, x, p: torch.func.hessian(loss(m))(x, p),
    "forward mode": dual,
    "vmap": lambda m, x, p: torch.func.vmap(m)(torch.stack([x, -x])),
    "gradients of samples": lambda m, x, p: torch.func.vmap(
        torch.func.grad(loss(m), argnums=1), (0, None)
    )(torch.stack([x, -x]), p),
}


def outcome(transform, module, x):
    """tensors, or the class of torch's error"""
    parameters = {k: v.detach() for k, v in module.named_parameters()}
    try:
        return [t.detach() for t in tree_leaves(transform(module, x, parameters))]
    except (NotImplementedError, RuntimeError) as error:
        return type(error)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", NAMES)
def test_what_torchs_module_does(name, transform):
    theirs, ours = twins(name, 3, 4)
    x = numbers(2, 3) if name in CELLS else numbers(5, 2, 3)
    wanted, got = (outcome(TRANSFORMS[transform], m, x) for m in (theirs, ours))
    if isinstance(wanted, type):
        assert got is wanted and ("LSTM" in name or transform in ("vmap", "gradients of samples"))
    else:
        assert len(got) == len(wanted) and all(map(torch.equal, got, wanted))


@pytest.mark.parametrize("transform", ["grad", "forward mode"])
def test_lengths_are_refused(transform):
    layer = fastrnn.torch.GRU(3, 4)

    def run(x):
        return layer(x, lengths=[2, 5])[0].sum()

    with pytest.raises(NotImplementedError, match="lengths: expected None inside torch.func's"):
        if transform == "grad":
            torch.func.grad(run)(numbers(5, 2, 3))
        else:
            dual(run, numbers(5, 2, 3), {})


def test_operators_alone_refuse_forward_mode():
    """without an error the tangent would be lost"""
    cell, x = fastrnn.torch.GRUCell(3, 4).requires_grad_(False), numbers(2, 3)
    weights = list(cell.parameters())
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        x = forward_ad.make_dual(x, torch.ones_like(x))
        torch.ops.fastrnn.recurrent(
            x, None, None, None, 2, None, 3, 0.0, None, weights, "gru", 1, True, False
        )


@pytest.mark.parametrize("transform", ["grad", "forward mode"])
def test_dropout_draws_what_torchs_does(transform):
    """our key of the masks is not drawn from torch's generator before its own code runs"""
    x, results = numbers(5, 2, 3), []
    for module in twins("LSTM", 3, 4, num_layers=2, dropout=0.5):
        torch.manual_seed(1)
        results.append(outcome(TRANSFORMS[transform], module, x))
        results.append([torch.rand(3)])
    if isinstance(results[0], type):
        assert results[2] is results[0]
    else:
        assert all(map(torch.equal, results[0], results[2]))
    assert torch.equal(results[1][0], results[3][0])


def test_lengths_without_values_are_refused_too():
    layer, lengths = fastrnn.torch.GRU(3, 4), torch.ones(2, dtype=torch.int64, device="meta")
    with pytest.raises(NotImplementedError, match="lengths: expected None inside"):
        torch.func.grad(lambda x: layer(x, lengths=lengths)[0].sum())(numbers(5, 2, 3))


@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap"])
def test_transforms_inside_compile_are_errors(transform):
    """our operators refuse there: no gradient or tangent is lost"""
    module, x = fastrnn.torch.GRU(3, 4), numbers(5, 2, 3)
    run = torch.compile(lambda x: TRANSFORMS[transform](module, x, {}), backend="aot_eager")
    with pytest.raises(RuntimeError):
        run(x)
