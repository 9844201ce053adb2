"""What a reconstruction is worth: where its code falls on the map, who recognises it, and what would do as well.

An image that evokes a unit's code proves little by itself: noise can do that. :func:`check_images` puts the same
questions to any images, so that reconstructions stand beside their baselines: does the image re-encode to its unit,
does the network give it the unit's class, does a second network, trained on its own, agree? :func:`exemplars` finds the
strongest baseline, the real images nearest to each unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from . import grids
from ._indices import check_count, check_indices
from .capture import capture
from .hooks import evaluating
from .statistics import wilson_interval


class DeadTargetWarning(UserWarning):
    """A target whose error had no gradient at any step: the image returned for it means nothing."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Images, and what the network makes of them.

    Attributes
    ----------
    images : torch.Tensor, float32 in [0, 1], shape (k, channels, height, width)
    codes : ndarray, float32, shape (k, n_units)
        What the images evoke, captured from the network as it came.
    targets : ndarray, float32, shape (k, n_units)
    loss : ndarray, float64, shape (n_steps + 1,)
        Mean normalised code error of the kept restarts, before each step and after the last.
    losses : ndarray, float64, shape (n_steps + 1, k)
        The same, per target.
    logits : ndarray, float32, shape (k, n_classes)
        What the network answers to the images.
    dead : ndarray of bool, shape (k,)
        Targets whose error never had a gradient.
    layer : str
    pool : str or int
    target_units, units : ndarray of int64, shape (k,), or None
        Unit of the map that each target belongs to, and the BMU of the image's code; None without a map.
    grid_distance : ndarray of float64, shape (k,), or None
        Between the two, in steps of the grid.
    within_one_step : ndarray of bool, shape (k,), or None
        Whether the image falls on its own unit or one that touches it: eight neighbours on a rectangular grid.
    """

    images: torch.Tensor = field(repr=False)
    codes: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)
    loss: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    logits: np.ndarray = field(repr=False)
    dead: np.ndarray = field(repr=False)
    layer: str
    pool: str | int
    target_units: np.ndarray | None = field(default=None, repr=False)
    units: np.ndarray | None = field(default=None, repr=False)
    grid_distance: np.ndarray | None = field(default=None, repr=False)
    within_one_step: np.ndarray | None = field(default=None, repr=False)

    @property
    def predictions(self) -> np.ndarray:
        """The network's answers, int64, shape (k,)."""
        return self.logits.argmax(1)

    @property
    def relative_error(self) -> np.ndarray:
        """|code - target| / |target|, shape (k,); infinite for a target of zeros that is not met."""
        return relative_error(self.codes, self.targets)

    @property
    def exact(self) -> np.ndarray | None:
        """Whether each image re-encodes to its own unit, bool of shape (k,); None without a map."""
        return None if self.units is None else self.units == self.target_units


def place_on_map(som, codes: np.ndarray, target_units: np.ndarray) -> dict[str, np.ndarray]:
    """Where codes fall on a map, beside where they should: the last four attributes of :class:`Reconstruction`."""
    units = som.predict(codes)
    distance = som.grid_distance(units, target_units)
    return {
        "target_units": np.asarray(target_units),
        "units": units,
        "grid_distance": distance,
        "within_one_step": distance**2 <= grids.ADJACENT[som.grid_type] + 1e-9,
    }


@dataclass(frozen=True, eq=False)
class Exemplars:
    """The real images nearest to each target, nearest first.

    Attributes
    ----------
    indices : ndarray of int64, shape (k, n_exemplars)
        Rows of the codes that were searched.
    distances : ndarray of float64, shape (k, n_exemplars)
        Euclidean, in code space.
    """

    indices: np.ndarray
    distances: np.ndarray


def exemplars(codes, targets, *, n_exemplars: int = 1) -> Exemplars:
    """Find the real images whose codes lie nearest to each target.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_units)
        Codes of real images.
    targets : array-like of float, shape (k, n_units) or (rows, columns, n_units)
        Codebook vectors, or any codes of the same layer.
    n_exemplars : int

    Returns
    -------
    Exemplars

    Raises
    ------
    ValueError
        If the widths differ, there are fewer samples than `n_exemplars`, or a number is not finite.

    Examples
    --------
    >>> found = exemplars([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]], [[4.0, 4.0]], n_exemplars=2)
    >>> found.indices
    array([[2, 1]])
    """
    codes, targets = as_codes(codes, "codes"), as_codes(targets, "targets")
    if codes.shape[1] != targets.shape[1]:
        raise ValueError(f"targets must have {codes.shape[1]} units, as the codes, got {targets.shape[1]}")
    if check_count(n_exemplars, "n_exemplars") > len(codes):
        raise ValueError(f"n_exemplars must be at most {len(codes)}, the number of samples, got {n_exemplars}")
    search = NearestNeighbors(n_neighbors=n_exemplars, algorithm="brute").fit(codes)
    distances, indices = search.kneighbors(targets)
    return Exemplars(indices.astype(np.int64), distances.astype(np.float64))


@dataclass(frozen=True)
class ImageCheck:
    """Claim 6 in numbers, for one set of images of a layer's units.

    Attributes
    ----------
    n_images : int
    code_error : float
        Median of |code - target| / |target|.
    exact, within_one_step : float
        Share of images that re-encode to their own unit; to it or one that touches it.
    agreement : tuple of float
        Share of images that each network gives the class of their unit: first the network whose codes these are, then
        the other judges in their order.
    """

    n_images: int
    code_error: float
    exact: float
    within_one_step: float
    agreement: tuple[float, ...]

    def interval(self, share: float) -> tuple[float, float]:
        """Wilson's 95 % interval of one of these shares, over the images."""
        return wilson_interval(round(share * self.n_images), self.n_images)


def check_images(
    model: nn.Module, layer: str, images, *, som, units, classes, judges=(), pool: str | int = "mean"
) -> ImageCheck:
    """Ask of images that claim to stand for units of a map whether they do.

    Parameters
    ----------
    model : torch.nn.Module
        The network whose layer the map is of.
    layer : str
    images : torch.Tensor, float32 in [0, 1], shape (k, channels, height, width)
        Reconstructions, exemplars, or one baseline image repeated.
    som : SOM
    units : array-like of int, shape (k,)
        Unit that each image claims to stand for.
    classes : array-like of int, shape (k,)
        Class of that unit, for example ``code_table(...).majority[units]``.
    judges : sequence of torch.nn.Module
        Other networks to be asked for the class.
    pool : str or int

    Returns
    -------
    ImageCheck

    Raises
    ------
    ValueError
        If there is not one unit and one class for each image, or a unit is not on the map.
    """
    codebook = np.asarray(som.codebook_).reshape(-1, som.codebook_.shape[-1])
    units = check_indices(units, "units", n_values=len(codebook), n_values_name="the map's units")
    classes = check_indices(classes, "classes")
    if not len(images) == len(units) == len(classes):
        raise ValueError(
            f"expected one unit and one class for each image, got {len(images)} images, {len(units)} units and "
            f"{len(classes)} classes"
        )
    found = capture(model, images, layers=layer, pool=pool, progress=False)
    placed = place_on_map(som, found[layer], units)
    answers = [found.predictions]
    answers += [_answers(judge, images) for judge in judges]
    return ImageCheck(
        n_images=len(images),
        code_error=float(np.median(relative_error(found[layer], codebook[units]))),
        exact=float(np.mean(placed["units"] == units)),
        within_one_step=float(np.mean(placed["within_one_step"])),
        agreement=tuple(float(np.mean(answer == classes)) for answer in answers),
    )


def relative_error(codes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """|code - target| / |target|, shape (k,); infinite for a target of zeros that is not met."""
    lengths = np.linalg.norm(targets, axis=1)
    errors = np.linalg.norm(codes - targets, axis=1)
    return np.divide(errors, lengths, out=np.where(errors > 0, np.inf, 0.0), where=lengths > 0)


def as_codes(values, name: str) -> np.ndarray:
    """A new float32 matrix of finite codes; a codebook's rows and columns are joined."""
    values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"{name} must have shape (k, n_units) or (rows, columns, n_units), got {values.shape}")
    values = np.array(values, dtype=np.float32).reshape(-1, values.shape[-1])
    n_bad = int((~np.isfinite(values)).any(1).sum())
    if n_bad:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {n_bad} rows; leave those out")
    return values


def _answers(model: nn.Module, images: torch.Tensor, batch_size: int = 256) -> np.ndarray:
    """Index of the largest logit for each image, int64 of shape (k,)."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with evaluating(model), torch.inference_mode():
        return torch.cat([model(batch.to(device)).argmax(1).cpu() for batch in images.split(batch_size)]).numpy()
