"""decoder: latents with the statistics that the docstring promises, and images that come nearer with training."""

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.decoder import Decoder, train_decoder

LAYERS = ["layer2", "layer4"]
QUICK = {"n_latents": 16, "n_epochs": 6, "batch_size": 16, "learning_rate": 1e-2, "progress": False}


@pytest.fixture(scope="module")
def data():
    images = nf.load_images("train", n_samples=320)[0]
    model = nf.load_model("resnet")
    codes = nf.capture(model, images, layers=LAYERS, progress=False)
    return model, images, {layer: torch.tensor(codes[layer]) for layer in LAYERS}


@pytest.fixture(scope="module")
def decoder(data):
    model, images, _ = data
    return train_decoder(
        model, images, layers=LAYERS, n_latents=16, n_epochs=8, batch_size=16, learning_rate=5e-3, progress=False
    )


def test_latents_are_white(decoder, data):
    latents = decoder.encode(data[2])
    assert latents.shape == (320, 16)
    torch.testing.assert_close(latents.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.T @ latents / 320, torch.eye(16), atol=0.02, rtol=0)


def test_guess_is_better_than_the_mean_and_exact_where_the_layer_says_all(decoder, data):
    model, images, codes = data
    latents = decoder.encode(codes)
    guess = decoder.guess("layer2", codes["layer2"])
    assert (guess - latents).pow(2).mean() < 0.7 * latents.pow(2).mean()
    alone = train_decoder(model, images[:200], layers="layer2", n_latents=4, n_epochs=1, progress=False)
    own = {"layer2": codes["layer2"][:200]}
    assert (alone.guess("layer2", own["layer2"]) - alone.encode(own)).pow(2).mean() < 0.01


def test_guess_of_an_unknown_layer_is_the_mean(decoder):
    assert not decoder.knows("layer3", 64)
    assert not decoder.knows("layer2", 128)
    assert decoder.guess("layer3", torch.ones(2, 64)).equal(torch.zeros(2, 16))


def test_images_come_nearer_than_the_mean_image(decoder, data):
    _, images, codes = data
    drawn = decoder(decoder.encode(codes))
    assert drawn.shape == images.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    error = (drawn - images).abs().mean()
    assert error < 0.8 * (images.mean(0) - images).abs().mean()


def test_code_term_brings_the_codes_nearer(data):
    model, images, codes = data
    weights = (0.0, 1.0)
    pixels_only, both = (train_decoder(model, images, layers=LAYERS, code_weight=w, **QUICK) for w in weights)

    def code_error(each):
        found = nf.capture(model, each(each.encode(codes)), layers=LAYERS, progress=False)
        return sum(np.square(found[layer] - codes[layer].numpy()).sum() / codes[layer].var(0).sum() for layer in LAYERS)

    assert code_error(both) < 0.85 * code_error(pixels_only)


def test_same_seed_same_decoder_and_global_random_state_untouched(data):
    model, images, _ = data
    settings = {"layers": "layer3", "n_latents": 4, "n_epochs": 1, "progress": False}
    torch.manual_seed(5)
    first = train_decoder(model, images[:64], random_state=1, **settings)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    again = train_decoder(model, images[:64], random_state=1, **settings)
    other = train_decoder(model, images[:64], random_state=2, **settings)
    z = torch.ones(1, 4)
    assert torch.equal(first(z), again(z))
    assert not torch.equal(first(z), other(z))
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 50), (3, 8, 8), (1, 5, 64)])
def test_any_size_and_channels(shape):
    decoder = Decoder(("a",), (6,), shape, n_latents=5)
    assert decoder(torch.randn(2, 5)).shape == (2, *shape)


def test_colour_images_of_odd_size(data):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    decoder = train_decoder(model.eval(), torch.rand(8, 3, 19, 22), layers="2", pool=2, n_epochs=1, progress=False)
    assert decoder(torch.zeros(1, decoder.n_latents)).shape == (1, 3, 19, 22)
    assert decoder.n_latents == 7  # eight images span seven directions


def test_errors(resnet, images):
    with pytest.raises(TypeError, match=r"images must be a float tensor .* got torch.uint8"):
        train_decoder(resnet, torch.zeros(4, 1, 28, 28, dtype=torch.uint8), layers="layer1")
    with pytest.raises(ValueError, match="two images or more"):
        train_decoder(resnet, images[:1], layers="layer1")
    with pytest.raises(ValueError, match="n_latents must be a whole number"):
        train_decoder(resnet, images, layers="layer1", n_latents=0)
