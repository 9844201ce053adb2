"""Reconstruction, traces and patches read every family's layers as capture does: axes, tokens, tuples, wrappers."""

import numpy as np
import pytest
import torch
from test_architectures import FAMILIES
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.adversarial import trace_attack
from nfcodes_lib.capture import tap
from nfcodes_lib.encoder import Encoder
from nfcodes_lib.patching import patch_test, patched
from nfcodes_lib.som import SOM


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    """Network with random weights, images, the layers chosen for it, and how to pool them."""
    build, side, layers, _ = FAMILIES[request.param]
    torch.manual_seed(0)
    model, pool = build().eval(), "mean"
    if request.param == "VisionTransformer":
        pool = "cls"
        nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros: one answer for all, no gradient
    return model, torch.rand(6, 3, side, side), layers, pool


class Paired(nn.Module):
    """Returns (maps, their mean) as recurrent and attention layers do, and goes on with the maps."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        maps = self.inner(x)
        return maps, maps.mean((2, 3))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, pair):
        return self.out(pair[0].amax((2, 3)))


def paired():
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("pair", Paired())
    net.add_module("head", Head())
    return net.eval()


def brighter(model, images, labels, epsilon):
    return (images + epsilon).clamp(0, 1)


def test_encoder_gives_the_codes_of_capture_and_a_gradient(family):
    model, images, layers, pool = family
    expected = nf.capture(model, images, layers=layers, pool=pool, progress=False)
    x = images.clone().requires_grad_(True)
    got = Encoder(model, layers, probe=images[:1], pool=pool)(x)
    for layer in layers:
        largest = float(np.abs(expected[layer]).max())
        np.testing.assert_allclose(got[layer].detach(), expected[layer], rtol=1e-3, atol=1e-3 * largest)
    got[layers[-1]].pow(2).sum().backward()
    assert x.grad.abs().max() > 0


def test_trace_sees_the_codes_of_capture(family):
    model, images, layers, pool = family
    labels = torch.from_numpy(np.asarray(nf.capture(model, images, layers=layers, pool=pool).predictions))
    codes = nf.capture(model, images, layers=layers, pool=pool, progress=False)
    lit = nf.capture(model, (images + 0.1).clamp(0, 1), layers=layers, pool=pool, progress=False)
    soms = {layer: SOM(1, 3, backend="torch", n_epochs=2, random_state=0).fit(codes[layer]) for layer in layers}
    trace = trace_attack(
        model, images, labels, soms, epsilons=[0.1], attack=brighter, pool=pool, progress=False, batch_size=6
    )
    for i, layer in enumerate(layers):
        change = np.linalg.norm(lit[layer] - codes[layer], axis=1) / np.linalg.norm(codes[layer], axis=1)
        np.testing.assert_allclose(trace.paths.code_change[0, i], change, rtol=2e-2, atol=1e-5)
        assert trace.clean_units[i].tolist() == soms[layer].predict(codes[layer]).tolist()


def test_a_complete_patch_of_the_last_layer_gives_the_donors_answer(family):
    model, images, layers, pool = family
    donors = images.roll(1, 0)
    theirs = nf.capture(model, donors, layers=layers, pool=pool, progress=False).predictions
    result = patch_test(model, images, donors, theirs, layers=layers[-1], fractions=[1.0], n_draws=1, progress=False)
    assert result.share.tolist() == [[1.0]]


def test_half_a_patch_exchanges_channels_wherever_they_lie():
    """Inside a ConvNeXt block channels lie on the last axis: half of them are the donor's, at every position."""
    torch.manual_seed(0)
    model, images = FAMILIES["ConvNeXt"][0]().eval(), torch.rand(4, 3, 16, 16)
    layer = "features.1.0.block.2"
    with tap(model, [layer], torch.clone) as clean, torch.no_grad():
        model(images.roll(1, 0))
    with tap(model, [layer], torch.clone) as own, torch.no_grad():
        model(images)
    chosen = torch.tensor([0, 3])
    with (
        patched(model, layer, clean[layer], chosen),
        tap(model, [layer], torch.clone) as mixed,
        torch.no_grad(),
    ):
        model(images)
    assert torch.equal(mixed[layer][:, chosen], clean[layer][:, chosen])
    assert torch.equal(mixed[layer][:, [1, 2]], own[layer][:, [1, 2]])


def test_one_tensor_of_several_is_read_and_patched_by_its_index():
    model, images = paired(), torch.rand(5, 3, 6, 6)
    codes = nf.capture(model, images, layers="pair[0]", progress=False)
    encoded = Encoder(model, "pair[0]", probe=images[:1])(images)
    np.testing.assert_allclose(encoded["pair[0]"].detach(), codes["pair[0]"], rtol=1e-5, atol=1e-6)
    donors = images.roll(1, 0)
    theirs = nf.capture(model, donors, layers="pair[0]", progress=False).predictions
    result = patch_test(model, images, donors, theirs, layers="pair[0]", fractions=[1.0], n_draws=1, progress=False)
    assert result.share.tolist() == [[1.0]]
    with pytest.raises(TypeError, match=r"name one of its tensors: pair\[0\]"):
        Encoder(model, "pair", probe=images[:1])


def test_names_with_and_without_the_prefix_of_a_wrapper():
    model, images = paired(), torch.rand(3, 3, 6, 6)
    wrapped = nn.DataParallel(model)
    expected = Encoder(model, "pair.inner", probe=images[:1])(images)["pair.inner"]
    for name in ("pair.inner", "module.pair.inner"):
        got = Encoder(wrapped, name, probe=images[:1])(images)[name]
        torch.testing.assert_close(got, expected)
