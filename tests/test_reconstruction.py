"""reconstruction: exemplars with known neighbours, and checks whose answer is known beforehand."""

import numpy as np
import pytest
import torch

import nfcodes_lib as nf
from nfcodes_lib.reconstruction import as_codes, check_images, exemplars, relative_error
from nfcodes_lib.statistics import wilson_interval


@pytest.fixture(scope="module")
def world():
    images, _ = nf.load_images("test", n_samples=60)
    model = nf.load_model("resnet")
    codes = nf.capture(model, images, layers="layer4", progress=False)
    som = nf.SOM(3, 3, backend="torch", n_epochs=5, random_state=0).fit(codes["layer4"])
    return model, images, codes, som


def test_exemplars_are_the_nearest_in_order():
    rng = np.random.default_rng(0)
    codes, codebook = rng.normal(size=(50, 4)), rng.normal(size=(2, 3, 4))
    found = exemplars(codes, codebook, n_exemplars=5)
    distances = np.linalg.norm(codes[None] - codebook.reshape(6, 1, 4), axis=2)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, 1)[:, :5])
    np.testing.assert_allclose(found.distances, np.sort(distances, 1)[:, :5], rtol=1e-5)


def test_exemplar_of_a_real_code_is_the_image_itself(world):
    codes = world[2]["layer4"]
    np.testing.assert_array_equal(exemplars(codes, codes[:7]).indices[:, 0], np.arange(7))


def test_real_images_pass_and_a_baseline_fails(world):
    model, images, codes, som = world
    units, classes = som.predict(codes["layer4"]), codes.predictions
    second = nf.load_model("resnet", pretrained=False, seed=3)
    check = check_images(model, "layer4", images, som=som, units=units, classes=classes, judges=[model, second])
    assert (check.n_images, check.exact, check.within_one_step) == (60, 1.0, 1.0)
    assert check.agreement[:2] == (1.0, 1.0)
    assert check.agreement[2] < 0.5
    assert check.interval(check.exact) == wilson_interval(60, 60)
    grey = images.mean(0, keepdim=True).expand(60, -1, -1, -1)
    baseline = check_images(model, "layer4", grey, som=som, units=units, classes=classes)
    assert baseline.exact <= np.bincount(units).max() / 60
    assert baseline.code_error > check.code_error
    assert len(baseline.agreement) == 1


def test_relative_error_of_a_zero_target():
    codes, targets = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(relative_error(codes, targets), [4 / 3, 0, np.inf])


def test_as_codes_copies():
    codes = torch.ones(2, 3)
    as_codes(codes, "codes")[0, 0] = 5
    assert codes[0, 0] == 1


def test_errors(world):
    model, images, _, som = world
    with pytest.raises(ValueError, match="targets must have 4 units, as the codes, got 3"):
        exemplars(np.zeros((5, 4)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="n_exemplars must be at most 5, the number of samples, got 6"):
        exemplars(np.zeros((5, 4)), np.zeros((2, 4)), n_exemplars=6)
    with pytest.raises(ValueError, match="codes must be finite, got NaN or infinity in 1 rows"):
        exemplars([[np.inf, 0.0], [0.0, 0.0]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="got 60 images, 2 units and 2 classes"):
        check_images(model, "layer4", images, som=som, units=[0, 1], classes=[0, 1])
    with pytest.raises(ValueError, match=r"units must lie in \[0, 9\), got 9"):
        check_images(model, "layer4", images[:1], som=som, units=[9], classes=[0])
