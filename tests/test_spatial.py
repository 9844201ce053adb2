"""Codes with a place: painted positions, and patches that are cut where the codes say."""

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.spatial import paint, unit_colors, unit_grid, unit_patches


class Blocks(nn.Module):
    """Mean colour of each 8 x 8 block: a layer whose spatial codes one can see."""

    def __init__(self):
        super().__init__()
        self.layer = nn.AvgPool2d(8)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.layer(x * self.weight).mean((2, 3))


class Corners:
    """A map with one unit for black, red, green and blue."""

    n_rows, n_columns = 2, 2
    codebook_ = np.array([[[0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1.0]]], np.float32)

    def predict(self, x):
        return ((x[:, None] - self.codebook_.reshape(4, 3)) ** 2).sum(2).argmin(1)


@pytest.fixture
def images():
    """Two images of 2 x 3 blocks: black but for red at (0, 2) and green at (1, 1) of the first, blue at (1, 0)."""
    images = torch.zeros(2, 3, 16, 24)
    images[0, 0, :8, 16:] = 1
    images[0, 1, 8:, 8:16] = 1
    images[1, 2, 8:, :8] = 1
    return images


@pytest.fixture
def codes(images):
    return nf.capture(Blocks(), images, layers="layer", pool="spatial", progress=False)


def test_units_lie_where_the_blocks_are(codes):
    grid = unit_grid(codes, "layer", Corners().predict(codes["layer"]))
    assert grid.tolist() == [[[0, 0, 1], [0, 2, 0]], [[0, 0, 0], [3, 0, 0]]]


def test_paint_covers_positions_in_their_units_colour(images, codes):
    grid = unit_grid(codes, "layer", Corners().predict(codes["layer"]))
    grid[grid == 0] = -1
    colors = unit_colors(2, 2)
    painted = paint(images, grid, colors, opacity=0.5)
    expected = 0.5 * 1 / 3 + 0.5 * colors[1]  # red is a third as bright in grey
    assert np.allclose(painted[0, :, 3, 20], expected)
    assert torch.equal(painted[0, :, :8, :16], torch.zeros(3, 8, 16))
    assert np.allclose(paint(images, grid, colors, opacity=1.0)[1, :, 12, 4], colors[3])


def test_patches_are_cut_around_the_position(images, codes):
    found = unit_patches(codes, "layer", images, Corners(), [2, 3], n_patches=1, side=8)
    assert found.sources.tolist() == [[0], [1]]
    assert found.positions.tolist() == [[[1, 1]], [[1, 0]]]
    assert torch.equal(found.images[0, 0, 1], torch.ones(8, 8))
    assert torch.equal(found.images[1, 0, 2], torch.ones(8, 8))
    wide = unit_patches(codes, "layer", images, Corners(), [3], n_patches=1, side=16).images[0, 0]
    assert wide.shape == (3, 16, 16)
    assert wide[2].sum() == 64
    assert wide[2, 4:12, 4:12].sum() == 64  # in the middle, with the border filled up


def test_one_patch_of_each_image(images, codes):
    found = unit_patches(codes, "layer", images, Corners(), [0, 1], n_patches=2, side=8, one_each=True)
    assert sorted(found.sources[0].tolist()) == [0, 1]
    assert found.sources[1, 0] == 0
    assert found.positions[1, 0].tolist() == [0, 2]


def test_colors_of_neighbours_are_alike():
    colors = unit_colors(6, 6).reshape(6, 6, 3)
    steps = np.linalg.norm(np.diff(colors, axis=1), axis=2)
    assert steps.max() < 0.25 * np.linalg.norm(colors[0, 0] - colors[0, -1]) + 0.05
    assert colors.min() >= 0
    assert colors.max() <= 1


def test_errors_say_what_to_do(images, codes):
    units = Corners().predict(codes["layer"])
    pooled = nf.capture(Blocks(), images, layers="layer", progress=False)
    with pytest.raises(ValueError, match="pool='spatial'"):
        unit_grid(pooled, "layer", units[:2])
    with pytest.raises(ValueError, match="each of 12 rows, got 5"):
        unit_grid(codes, "layer", units[:5])
    with pytest.raises(ValueError, match="expected images"):
        paint(images[:1], unit_grid(codes, "layer", units), unit_colors(2, 2))
    with pytest.raises(ValueError, match=r"lie in \[-1, 2\)"):
        paint(images, unit_grid(codes, "layer", units), unit_colors(1, 2))
    with pytest.raises(ValueError, match="of these 1 images"):
        unit_patches(codes, "layer", images[:1], Corners(), [0])
    with pytest.raises(ValueError, match="n_patches must be at most 2"):
        unit_patches(codes, "layer", images, Corners(), [0], n_patches=3, one_each=True)
