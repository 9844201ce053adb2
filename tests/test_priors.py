"""priors: bounds, known values of the penalties, transformations that do what they say."""

import math

import pytest
import torch

from nfcodes_lib.priors import Fourier, Latents, Pixels, random_affine, total_variation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [Pixels, Fourier])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14)])
def test_images_keep_the_bounds_however_far_the_steps(kind, shape):
    prior = kind(4, shape, generator=generator())
    assert prior.images().shape == (4, *shape)
    for scale in (1.0, -1000.0, 1e6):
        with torch.no_grad():
            prior.parameter.add_(scale * torch.randn(prior.parameter.shape, generator=generator(1)))
        prior.project()
        images = prior.images()
        assert images.min() >= 0
        assert images.max() <= 1


@pytest.mark.parametrize("kind", [Pixels, Fourier])
def test_start_depends_on_the_generator_alone(kind):
    first, again, other = (kind(2, (1, 8, 8), generator=generator(seed)).images() for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fourier_start_is_smoother_than_pixels():
    rough, smooth = (kind(50, (1, 28, 28), generator=generator()).images() for kind in (Pixels, Fourier))
    ratio = [(total_variation(x) / x.std((1, 2, 3))).mean().item() for x in (rough, smooth)]
    assert ratio[1] < 0.7 * ratio[0]


def test_latents_penalty_is_the_weighted_mean_square():
    start = torch.tensor([[1.0, -1.0], [0.0, 2.0], [0.0, 0.0]])
    prior = Latents(start, lambda z: torch.sigmoid(z)[:, None, None], weight=0.5)
    torch.testing.assert_close(prior.penalty(), torch.tensor([0.5, 1.0, 0.0]))
    assert prior.images().shape == (3, 1, 1, 2)
    prior.images().sum().backward()
    assert start.grad is None  # the caller's tensor is not what is optimised
    assert prior.parameter.grad is not None


def test_total_variation_of_a_ramp():
    ramp = torch.arange(5.0).expand(1, 3, 4, 5)
    assert total_variation(ramp).item() == 1.0


def test_identity_transformation_changes_nothing():
    x = torch.rand(3, 1, 10, 7, generator=generator())
    same = random_affine(x, shift=0, degrees=0, zoom=0, generator=generator())
    torch.testing.assert_close(same, x, atol=1e-5, rtol=0)


def test_shift_moves_by_at_most_the_given_pixels():
    x = torch.zeros(200, 1, 21, 31)
    x[:, :, 10, 15] = 1
    moved = random_affine(x, shift=3, degrees=0, zoom=0, generator=generator())
    mass = moved.sum((1, 2, 3))
    rows = (moved.sum((1, 3)) @ torch.arange(21.0)) / mass - 10
    columns = (moved.sum((1, 2)) @ torch.arange(31.0)) / mass - 15
    assert rows.abs().max() <= 3 + 1e-3
    assert columns.abs().max() <= 3 + 1e-3
    assert rows.abs().max() > 2.5
    assert columns.abs().max() > 2.5


def test_turn_keeps_distances_on_an_image_that_is_not_square():
    x = torch.zeros(50, 1, 41, 61)
    x[:, :, 20, 45] = 1  # 15 pixels right of the centre
    turned = random_affine(x, shift=0, degrees=60, zoom=0, generator=generator())
    mass = turned.sum((1, 2, 3))
    dy = (turned.sum((1, 3)) @ torch.arange(41.0)) / mass - 20
    dx = (turned.sum((1, 2)) @ torch.arange(61.0)) / mass - 30
    assert (torch.hypot(dx, dy) - 15).abs().max() < 0.2
    assert torch.rad2deg(torch.atan2(dy, dx).abs()).max() <= 60 + 1
    assert math.degrees(torch.atan2(dy, dx).abs().max()) > 40


def test_transformation_is_differentiable():
    x = torch.rand(2, 1, 8, 8).requires_grad_(True)
    random_affine(x, shift=1, degrees=5, zoom=0.05, generator=generator()).sum().backward()
    assert x.grad.abs().sum() > 0
