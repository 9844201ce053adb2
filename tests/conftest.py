"""Shared fixtures: a few real images, the trained network, and two networks small enough to check by hand."""

import matplotlib as mpl
import pytest
import torch
from torch import nn

import nfcodes_lib as nf

mpl.use("Agg")


@pytest.fixture(scope="session")
def images():
    return nf.load_images("test", n_samples=40)[0]


@pytest.fixture(scope="session")
def resnet():
    return nf.load_model("resnet", seed=0)


@pytest.fixture
def tiny_net():
    """Two 1 x 1 convolutions with weights set by hand: `expand` gives (2 x, -x), `head` sums each map."""
    net = nn.Sequential()
    net.add_module("expand", nn.Conv2d(1, 2, 1, bias=False))
    net.add_module("relu", nn.ReLU(inplace=True))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(2, 3))
    with torch.no_grad():
        net.expand.weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1))
        net.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        net.head.bias.zero_()
    return net
