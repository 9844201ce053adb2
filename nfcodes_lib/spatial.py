"""Codes with a place: what unit stands at each position of an image, and which pieces of images a unit stands for.

With ``pool="spatial"`` a code belongs to a position of a feature map, and so to a piece of the image. Then a map can be
painted back onto the images (:func:`paint`), and a unit can be shown as the pieces that it stands for
(:func:`unit_patches`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ._indices import check_count, check_indices
from .layer_codes import LayerCodes
from .reconstruction import exemplars

CORNERS = ((0.00, 0.45, 0.70), (0.90, 0.62, 0.00), (0.00, 0.62, 0.45), (0.80, 0.25, 0.45))  # of the map, row by row


def unit_colors(n_rows: int, n_columns: int) -> np.ndarray:
    """A colour for each unit, mixed from those of the map's corners: neighbours on the map look alike.

    Parameters
    ----------
    n_rows, n_columns : int

    Returns
    -------
    ndarray of float64, shape (n_rows * n_columns, 3)
        RGB in [0, 1]: blue, orange, green and pink in the corners, read row by row.

    Examples
    --------
    >>> unit_colors(1, 3)[1].round(3)
    array([0.45 , 0.535, 0.35 ])
    """
    down = np.linspace(0, 1, check_count(n_rows, "n_rows"))[:, None, None]
    along = np.linspace(0, 1, check_count(n_columns, "n_columns"))[None, :, None]
    one, two, three, four = np.array(CORNERS)
    return ((1 - down) * ((1 - along) * one + along * two) + down * ((1 - along) * three + along * four)).reshape(-1, 3)


def unit_grid(codes: LayerCodes, layer: str, units) -> np.ndarray:
    """Units of spatial codes, laid out as the feature maps: int64, shape (n_images, height, width).

    Raises
    ------
    ValueError
        If the codes of the layer are not spatial, or there is not one unit for each row.
    """
    units = check_indices(units, "units")
    shape = codes.shapes[layer]
    if codes.pool != "spatial" or len(shape) != 3:
        raise ValueError(f"expected codes with pool='spatial' of feature maps, got {codes.pool!r} and shape {shape}")
    if len(units) != len(codes[layer]):
        raise ValueError(f"units must name one unit for each of {len(codes[layer])} rows, got {len(units)}")
    return units.reshape(-1, *shape[1:])


def paint(images, grid, colors, *, opacity: float = 0.65) -> torch.Tensor:
    """Paint each position of a feature map onto the image, in the colour of its unit.

    Parameters
    ----------
    images : torch.Tensor, float, shape (n, 3, height, width)
        In [0, 1]; drawn in grey under the paint.
    grid : array-like of int, shape (n, rows, columns)
        Units, as :func:`unit_grid` gives them; -1 leaves a position unpainted.
    colors : array-like of float, shape (n_units, 3)
        As of :func:`unit_colors`.
    opacity : float
        Of the paint, 0 to 1.

    Returns
    -------
    torch.Tensor, float32, shape (n, 3, height, width)

    Raises
    ------
    ValueError
        If images and grid do not describe the same images, or a unit has no colour.

    Examples
    --------
    >>> painted = paint(torch.zeros(1, 3, 4, 4), [[[0, -1], [1, 1]]], unit_colors(1, 2), opacity=1.0)
    >>> painted[0, :, 0, 0], painted[0, :, 0, 3]
    (tensor([0.0000, 0.4500, 0.7000]), tensor([0., 0., 0.]))
    """
    images, grid, colors = torch.as_tensor(images), np.asarray(grid), np.asarray(colors, np.float32)
    if images.ndim != 4 or grid.ndim != 3 or len(images) != len(grid):
        raise ValueError(
            f"expected images (n, 3, height, width) and a grid (n, rows, columns), got {tuple(images.shape)} and "
            f"{grid.shape}"
        )
    if grid.min() < -1 or grid.max() >= len(colors):
        raise ValueError(f"units must lie in [-1, {len(colors)}), got {grid.min()} to {grid.max()}")
    opacity_at = torch.from_numpy(np.where(grid < 0, 0, opacity).astype(np.float32))[:, None]
    color = torch.from_numpy(colors[np.maximum(grid, 0)]).permute(0, 3, 1, 2)
    size = images.shape[2:]
    opacity_at, color = (torch.nn.functional.interpolate(each, size=size) for each in (opacity_at, color))
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return (1 - opacity_at) * grey + opacity_at * color


@dataclass(frozen=True, eq=False)
class UnitPatches:
    """Pieces of images that units stand for.

    Attributes
    ----------
    images : torch.Tensor, float32, shape (k, n_patches, 3, side, side)
        Black beyond the border of the image.
    sources : ndarray of int64, shape (k, n_patches)
        From which image each comes.
    positions : ndarray of int64, shape (k, n_patches, 2)
        Row and column on the feature map.
    """

    images: torch.Tensor
    sources: np.ndarray
    positions: np.ndarray


def unit_patches(
    codes: LayerCodes, layer: str, images, som, units, *, n_patches: int = 4, side: int = 48, one_each: bool = False
) -> UnitPatches:
    """Cut out of the images what lies nearest to some units of a map.

    Parameters
    ----------
    codes : LayerCodes
        Spatial codes of `images`.
    layer : str
    images : torch.Tensor, float, shape (n, 3, height, width)
    som : SOM
        Map of the layer's codes.
    units : array-like of int, shape (k,)
    n_patches : int
        For each unit.
    side : int
        Of a patch, in pixels, about the middle of the position. What a deep position sees is larger than any patch.
    one_each : bool
        Take no two patches of a unit from the same image.

    Returns
    -------
    UnitPatches

    Raises
    ------
    ValueError
        If the codes are not spatial or not of these images, or there are fewer positions (with `one_each`, images)
        than patches.
    """
    units = check_indices(units, "units", n_values=som.n_rows * som.n_columns, n_values_name="the map's units")
    n, (rows, columns) = len(images), codes.shapes[layer][1:]
    targets = som.codebook_.reshape(-1, som.codebook_.shape[-1])[units]
    if codes.pool != "spatial" or len(codes[layer]) != n * rows * columns:
        raise ValueError(f"expected spatial codes of these {n} images, got {len(codes[layer])} rows, {codes.pool!r}")
    if check_count(n_patches, "n_patches") > (n if one_each else n * rows * columns):
        raise ValueError(f"n_patches must be at most {n if one_each else n * rows * columns} here, got {n_patches}")
    found = exemplars(codes[layer], targets, n_exemplars=len(codes[layer]) if one_each else n_patches).indices
    if one_each:  # of each image the nearest position only; then the nearest images
        of_image = found // (rows * columns)
        firsts = [np.sort(np.unique(each, return_index=True)[1])[:n_patches] for each in of_image]
        found = np.stack([row[first] for row, first in zip(found, firsts, strict=True)])
    places = codes.positions(layer, found.ravel())
    half = check_count(side, "side") // 2
    padded = torch.nn.functional.pad(torch.as_tensor(images), [half, side - half] * 2)
    cut = []
    for image, row, column in places:
        y, x = int((row + 0.5) * images.shape[2] / rows), int((column + 0.5) * images.shape[3] / columns)
        cut.append(padded[image, :, y : y + side, x : x + side])
    shape = found.shape
    return UnitPatches(
        torch.stack(cut).unflatten(0, shape), places[:, 0].reshape(shape), places[:, 1:].reshape(*shape, 2)
    )
