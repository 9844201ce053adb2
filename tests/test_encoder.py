"""encoder: the same codes as capture, a gradient to the pixels, and the network left as it came."""

import copy

import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.encoder import Encoder

LAYERS = ("layer1", "layer3")


@pytest.mark.parametrize("pool", ["mean", "max", "none", 2])
def test_codes_are_those_of_capture(resnet, images, pool):
    expected = nf.capture(resnet, images[:6], layers=LAYERS, pool=pool, progress=False)
    got = Encoder(resnet, LAYERS, probe=images[:1], pool=pool)(images[:6])
    for layer in LAYERS:
        torch.testing.assert_close(got[layer], torch.tensor(expected[layer]), rtol=1e-3, atol=1e-4)


def test_gradient_is_that_of_the_whole_network(resnet, images):
    x = images[:2].clone().requires_grad_(True)
    seen = {}
    handle = resnet.layer2.register_forward_hook(lambda module, inputs, output: seen.update(out=output.mean((2, 3))))
    resnet(x)
    handle.remove()
    (expected,) = torch.autograd.grad(seen["out"].pow(2).sum(), x)
    y = images[:2].clone().requires_grad_(True)
    codes = Encoder(resnet, "layer2", probe=images[:1])(y)["layer2"]
    (got,) = torch.autograd.grad(codes.pow(2).sum(), y)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_network_is_left_as_it_came(images):
    model = nf.load_model("resnet")
    model.layer1.train()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    encoder = Encoder(model, "layer4", probe=images[:1])
    encoder(images[:2].clone().requires_grad_(True))["layer4"].sum().backward()
    assert encoder.n_folded == 12
    assert [m.training for m in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_pass_stops_behind_the_last_layer(resnet, images):
    model = copy.deepcopy(resnet)

    def refuse(module, inputs):
        raise AssertionError("layer3 ran")

    encoder = Encoder(model, "layer2", probe=images[:1])
    encoder._model.layer3.register_forward_pre_hook(refuse)
    assert encoder(images[:2])["layer2"].shape == (2, 32)


class Forked(nn.Module):
    """A convolution whose output also bypasses its batch norm, so that folding it would change the function."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.norm.running_var.fill_(9.0)
        self.out = nn.Identity()

    def forward(self, x):
        y = self.conv(x)
        return self.out(self.norm(y) + y).mean((2, 3))


def test_a_fold_that_changes_the_codes_is_undone():
    torch.manual_seed(0)
    model, x = Forked().eval(), torch.rand(2, 1, 8, 8)
    encoder = Encoder(model, "out", probe=x)
    assert encoder.n_folded == 0
    torch.testing.assert_close(encoder(x)["out"], model(x))


def test_errors(resnet, images):
    with pytest.raises(ValueError, match="did you mean 'layer1'"):
        Encoder(resnet, "layr1", probe=images[:1])
    with pytest.raises(ValueError, match="pool must give one code per image"):
        Encoder(resnet, "layer1", probe=images[:1], pool="spatial")
    model = copy.deepcopy(resnet)
    model.unused = nn.Identity()
    with pytest.raises(ValueError, match=r"\['unused'\] did not"):
        Encoder(model, ["layer1", "unused"], probe=images[:1])
