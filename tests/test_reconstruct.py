"""reconstruct: codes that are met, bounds, determinism, batches, dead targets, and every refusal."""

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.decoder import train_decoder
from nfcodes_lib.reconstruct import reconstruct
from nfcodes_lib.reconstruction import DeadTargetWarning

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def codes():
    images = nf.load_images("test", n_samples=40)[0]
    return nf.capture(nf.load_model("resnet"), images, layers=["layer1", "layer3"], **QUIET)


@pytest.fixture(scope="module")
def decoder():
    images = nf.load_images("train", n_samples=320)[0]
    settings = {"layers": ["layer1", "layer3"], "n_latents": 24, "n_epochs": 8, "batch_size": 16, "learning_rate": 1e-2}
    return train_decoder(nf.load_model("resnet"), images, **settings, **QUIET)


@pytest.mark.parametrize("parametrization", ["pixel", "fourier"])
def test_codes_are_met(resnet, codes, parametrization):
    settings = {"parametrization": parametrization, "reference": codes["layer3"], "n_steps": 60}
    rec = reconstruct(resnet, "layer3", codes["layer3"][:4], **settings, **QUIET)
    assert rec.images.shape == (4, 1, 28, 28)
    assert rec.images.dtype == torch.float32
    assert rec.images.min() >= 0
    assert rec.images.max() <= 1
    assert rec.loss.shape == (61,)
    assert rec.losses.shape == (61, 4)
    assert rec.loss[-1] < 0.15 * rec.loss[0]
    assert np.median(rec.relative_error) < 0.3
    np.testing.assert_allclose(rec.loss, rec.losses.mean(1))


def test_what_is_returned_is_what_capture_says_of_the_images(resnet, codes):
    rec = reconstruct(resnet, "layer3", codes["layer3"][:2], n_steps=5, **QUIET)
    again = nf.capture(resnet, rec.images, layers="layer3", **QUIET)
    np.testing.assert_array_equal(rec.codes, again["layer3"])
    np.testing.assert_array_equal(rec.predictions, again.predictions)
    expected = np.linalg.norm(rec.codes - rec.targets, axis=1) / np.linalg.norm(rec.targets, axis=1)
    np.testing.assert_allclose(rec.relative_error, expected)
    assert rec.units is None
    assert rec.exact is None


def test_decoder_begins_at_its_guess_and_comes_nearer(resnet, codes, decoder):
    targets = codes["layer1"][:6]
    rec = reconstruct(resnet, "layer1", targets, decoder=decoder, n_steps=25, **QUIET)
    with torch.no_grad():
        guess = decoder(decoder.guess("layer1", torch.from_numpy(targets)))
    start = nf.capture(resnet, guess, layers="layer1", **QUIET)["layer1"]
    spread = decoder.spread("layer1").numpy()
    np.testing.assert_allclose(rec.losses[0], ((start - targets) ** 2).sum(1) / (spread**2).sum(), rtol=1e-3)
    assert rec.loss[-1] < 0.5 * rec.loss[0]


def test_latent_weight_keeps_latents_small(resnet, codes, decoder):
    free, bound = (
        reconstruct(resnet, "layer1", codes["layer1"][:3], decoder=decoder, latent_weight=w, n_steps=15, **QUIET)
        for w in (0.0, 10.0)
    )
    assert bound.loss[-1] > free.loss[-1]


def test_same_seed_same_images(resnet, codes):
    settings = {"n_steps": 4, "jitter": 1.0, **QUIET}
    first, again, other = (
        reconstruct(resnet, "layer1", codes["layer1"][:3], random_state=seed, **settings) for seed in (0, 0, 1)
    )
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_global_random_state_and_model_are_untouched(codes, images):
    model = nf.load_model("resnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    reconstruct(model, "layer1", codes["layer1"][:2], n_steps=2, **QUIET)
    assert torch.equal(torch.rand(1), expected)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batches_give_what_one_run_gives(resnet, codes, decoder):
    settings = {"decoder": decoder, "n_steps": 3, **QUIET}  # one start, no jitter: nothing random is left
    whole = reconstruct(resnet, "layer1", codes["layer1"][:5], **settings)
    parts = reconstruct(resnet, "layer1", codes["layer1"][:5], batch_size=2, **settings)
    torch.testing.assert_close(whole.images, parts.images, atol=1e-3, rtol=0)


def test_restarts_keep_the_best_of_each_target(resnet, codes):
    settings = {"n_steps": 6, **QUIET}
    one = reconstruct(resnet, "layer1", codes["layer1"][:6], **settings)
    three = reconstruct(resnet, "layer1", codes["layer1"][:6], n_restarts=3, **settings)
    assert (three.losses[-1] <= one.losses[-1]).all()
    assert (three.losses[-1] < one.losses[-1]).any()


def test_total_variation_smooths(resnet, codes):
    settings = {"parametrization": "pixel", "n_steps": 30, **QUIET}
    rough, smooth = (
        reconstruct(resnet, "layer1", codes["layer1"][:3], total_variation_weight=w, **settings) for w in (0.0, 20.0)
    )

    def grain(rec):
        return np.abs(np.diff(rec.images.numpy())).mean()

    assert grain(smooth) < 0.5 * grain(rough)


@pytest.mark.parametrize("normalization", ["total", "unit", "whiten"])
def test_normalisations_measure_as_described(resnet, codes, normalization):
    reference, targets = codes["layer1"], codes["layer1"][:3]
    rec = reconstruct(resnet, "layer1", targets, n_steps=1, reference=reference, normalization=normalization, **QUIET)
    difference = (rec.codes - targets).astype(np.float64)
    spread = reference.std(0, dtype=np.float64)
    if normalization == "total":
        expected = (difference**2).sum(1) / (spread**2).sum()
    elif normalization == "unit":
        expected = ((difference / spread) ** 2).mean(1)
    else:
        inverse = np.linalg.pinv(np.cov(reference, rowvar=False), rcond=1e-12)
        expected = np.einsum("ki,ij,kj->k", difference, inverse, difference) / 16
        expected, rec_last = np.argsort(expected), np.argsort(rec.losses[-1])
        np.testing.assert_array_equal(rec_last, expected)  # small variances are floored, so only the order is known
        return
    np.testing.assert_allclose(rec.losses[-1], expected, rtol=2e-2)


def test_map_says_where_images_fall(resnet, codes, decoder):
    som = nf.SOM(3, 4, backend="torch", n_epochs=5, random_state=0).fit(codes["layer3"])
    rec = reconstruct(resnet, "layer3", som.codebook_, decoder=decoder, som=som, n_steps=40, **QUIET)
    np.testing.assert_array_equal(rec.target_units, np.arange(12))
    np.testing.assert_array_equal(rec.units, som.predict(rec.codes))
    np.testing.assert_array_equal(rec.exact, rec.units == np.arange(12))
    assert rec.exact.mean() > 0.4
    assert rec.within_one_step[rec.exact].all()
    assert (rec.grid_distance[rec.within_one_step] < 1.5).all()
    assert (rec.grid_distance[~rec.within_one_step] >= 2).all()


def test_layout_codes(resnet, images):
    targets = nf.capture(resnet, images[:2], layers="layer4", pool=2, **QUIET)["layer4"]
    rec = reconstruct(resnet, "layer4", targets, pool=2, n_steps=30, **QUIET)
    assert rec.codes.shape == (2, 4 * 128)
    assert rec.loss[-1] < 0.4 * rec.loss[0]


def test_three_channels_and_odd_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(2, 3, 19, 22)
    targets = nf.capture(model, x, layers="2", **QUIET)["2"]
    rec = reconstruct(model, "2", targets, shape=(3, 19, 22), n_steps=40, **QUIET)
    assert rec.images.shape == (2, 3, 19, 22)
    assert rec.loss[-1] < 0.2 * rec.loss[0]


def silent_net():
    """A ReLU that never opens: its output is zero for every image in [0, 1], and so is every gradient."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.constant_(net[0].bias, -5.0)
    return net


def test_dead_targets_warn_and_are_named():
    targets = np.array([[0.0, 0.0], [1.0, 0.5]], dtype=np.float32)  # the first is met by any image
    with pytest.warns(DeadTargetWarning, match=r"1 of 2 targets, \[1\] first, gave no gradient"):
        rec = reconstruct(silent_net(), "1", targets, shape=(1, 6, 6), n_steps=3, n_restarts=2, **QUIET)
    np.testing.assert_array_equal(rec.dead, [False, True])
    np.testing.assert_array_equal(rec.relative_error, [0.0, 1.0])


@pytest.mark.filterwarnings("error::nfcodes_lib.reconstruction.DeadTargetWarning")
def test_living_targets_do_not_warn(resnet, codes):
    assert not reconstruct(resnet, "layer1", codes["layer1"][:2], n_steps=2, **QUIET).dead.any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": "layr1"}, "did you mean 'layer1'"),
        ({"targets": np.zeros((2, 5))}, "targets must have 16 units, the width of 'layer1' with pool='mean'"),
        ({"targets": np.zeros(16)}, r"targets must have shape \(k, n_units\)"),
        ({"targets": np.full((2, 16), np.nan)}, "targets must be finite, got NaN or infinity in 2 rows"),
        ({"parametrization": "furier"}, "did you mean 'fourier'"),
        ({"normalization": "whitened"}, "did you mean 'whiten'"),
        ({"reference": np.zeros((4, 3))}, "reference must have 16 units"),
        ({"pool": "spatial"}, "targets must have 16 units|pool must give one code per image"),
        ({"n_steps": 0}, "n_steps must be a whole number of at least 1"),
        ({"units": [0, 1]}, "som is None; pass the map"),
    ],
)
def test_errors(resnet, codes, changed, message):
    arguments = {"layer": "layer1", "targets": codes["layer1"][:2], "n_steps": 1, **QUIET} | changed
    with pytest.raises(ValueError, match=message):
        reconstruct(resnet, arguments.pop("layer"), arguments.pop("targets"), **arguments)
