"""Patching: known answers on a network set by hand, and what a complete patch restores by construction."""

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.patching import patch_test, patched


@pytest.fixture(scope="module")
def images():
    return nf.load_images("test", n_samples=12, random_state=3)[0]


@pytest.fixture
def voting():
    """Four maps, each a copy of the pixel; class 1 is answered where their sum exceeds 2."""
    net = nn.Sequential()
    net.add_module("copies", nn.Conv2d(1, 4, 1, bias=False))
    net.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", nn.Linear(4, 2))
    with torch.no_grad():
        net.copies.weight.fill_(1)
        net.head.weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
        net.head.bias.copy_(torch.tensor([0.0, -2.0]))
    return net.eval()


def test_a_majority_of_maps_carries_the_answer(voting):
    dark, bright = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    result = patch_test(voting, dark, bright, [1, 1, 1], layers="copies", fractions=[0.25, 0.5, 0.75, 1.0], n_draws=3)
    assert result.share.tolist() == [[0, 0, 1, 1]]  # 1, 2, 3 and 4 of the maps are bright
    assert result.unpatched == 0
    assert result.per_image.shape == (1, 4, 3)
    back = patch_test(voting, bright, dark, [1, 1, 1], layers="copies", fractions=[0.25, 0.5], n_draws=3)
    assert back.share.tolist() == [[1, 0]]
    assert back.unpatched == 1


def test_patched_puts_in_the_maps_that_are_named(voting):
    donor = torch.arange(8.0).reshape(2, 4, 1, 1).expand(2, 4, 2, 2)
    with patched(voting, "copies", donor, torch.tensor([1, 3])):
        output = voting[0](torch.full((2, 1, 2, 2), 9.0))
    assert output[:, :, 0, 0].tolist() == [[9, 1, 9, 3], [9, 5, 9, 7]]
    assert not voting[0]._forward_hooks


def test_a_complete_patch_gives_the_donors_answer_at_every_stage(resnet, images):
    donors = images.roll(1, 0)
    layers = ["stem", "layer1", "layer2", "layer3", "layer4"]
    theirs = nf.capture(resnet, donors, layers="layer1").predictions
    ours = nf.capture(resnet, images, layers="layer1").predictions
    result = patch_test(resnet, images, donors, theirs, layers=layers, fractions=[0.5, 1.0], n_draws=2, batch_size=5)
    assert (result.share[:, 1] == 1).all()
    assert result.unpatched == np.mean(ours == theirs)
    assert (result.low <= result.share).all()
    assert (result.share <= result.high).all()


def test_a_complete_patch_of_one_branch_of_a_block_does_not_settle_the_answer(resnet, images):
    donors = images.roll(1, 0)
    theirs = nf.capture(resnet, donors, layers="layer1").predictions
    result = patch_test(resnet, images, donors, theirs, layers=["layer2.skip", "layer4.skip"], fractions=[1.0])
    assert (result.share < 0.7).all()


def test_batches_and_seeds(resnet, images):
    donors = images.flip(0)
    theirs = nf.capture(resnet, donors, layers="layer1").predictions

    def run(**options):
        options = {"layers": ["layer2"], "fractions": [0.5], "n_draws": 3} | options
        return patch_test(resnet, images, donors, theirs, **options).per_image

    assert np.array_equal(run(), run(batch_size=5))
    assert np.array_equal(run(), run())
    assert len({run(n_draws=1, random_state=seed).tobytes() for seed in range(5)}) > 1


def test_the_model_is_left_as_it_was(resnet, images):
    resnet.layer1.train()
    try:
        patch_test(resnet, images, images, np.zeros(12, int), layers="layer1", fractions=[0.5], n_draws=1)
        assert resnet.layer1.training
        with (
            pytest.raises(ValueError, match=r"must have shape \(12, 16, 28, 28\), got \(3, 16, 28, 28\)"),
            patched(resnet, "layer1", torch.zeros(3, 16, 28, 28), torch.tensor([0])),
        ):
            resnet(images)
        assert not any(module._forward_hooks for module in resnet.modules())
    finally:
        resnet.eval()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layers": "layer5"}, "got 'layer5'; did you mean 'layer"),
        ({"fractions": [0.0, 0.5]}, r"fractions must lie in \(0, 1\], got \[0.0, 0.5\]"),
        ({"fractions": [1.5]}, r"fractions must lie in \(0, 1\]"),
        ({"n_draws": 0}, "n_draws must be a whole number of at least 1"),
        ({"answers": [1]}, r"must describe the same one or more images.* and \(1,\)"),
        ({"donors": torch.zeros(2, 1, 28, 28)}, r"must describe the same one or more images"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(resnet, images, options, match):
    options = {"donors": images, "answers": np.zeros(12, int), "layers": "layer1"} | options
    with pytest.raises(ValueError, match=match):
        patch_test(resnet, images, options.pop("donors"), options.pop("answers"), **options)
