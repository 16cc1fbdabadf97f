"""What the tests of fastrnn.torch share: names of its modules, twins of torch's, their results."""

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

import fastrnn.torch

LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")
NAMES = (*LAYERS, *CELLS)


def numbers(*shape, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(len(shape)).normal(size=shape)).to(dtype)


def twins(name, *args, **options):
    """torch's module and ours, with the same weights"""
    theirs, ours = (getattr(m, name)(*args, **options) for m in (torch.nn, fastrnn.torch))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def bits(value):
    """dtype, shape and bytes of a tensor or an array: as numbers 0 and -0 are equal"""
    array = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
    return array.dtype, array.shape, array.tobytes()


def first(result):
    """the output of a layer, h of a cell"""
    return result[0] if isinstance(result, tuple) else result


def leaves(value):
    """the tensors of a result, in order"""
    if isinstance(value, PackedSequence):
        return [value.data, value.batch_sizes]
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for item in value for leaf in leaves(item)]
