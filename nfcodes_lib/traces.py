"""The record of an attack's way through a network: what ``trace_attack`` returns, and what follows from it.

E budgets, L layers, n images: every number is kept image by image (:class:`Paths`), so that averages, intervals and
selections need no second attack.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ._indices import check_confidence, check_count
from ._names import did_you_mean
from .statistics import wilson_interval

SHARES = ("success", "bmu_changed", "parted", "entered")
AVERAGES = ("relative_change", "cosine_change", "code_change", "grid_distance", "quantization_error")


@dataclass(frozen=True, eq=False)
class Paths:
    """What happened to every image, for one kind of perturbation: E budgets, L layers, n images.

    Attributes
    ----------
    predictions : ndarray of int64, shape (E, n)
    success : ndarray of bool, shape (E, n)
        Another answer than the label; with targets, the target.
    l2_norm, linf_norm : ndarray of float64, shape (E, n)
        Length of the perturbation actually made, and its largest pixel.
    relative_change : ndarray of float64, shape (E, L, n)
        ||a' - a|| / ||a|| of the whole activation.
    cosine_change : ndarray of float64, shape (E, L, n)
        1 - cos(a', a), from 0 (same direction) to 2.
    code_change : ndarray of float64, shape (E, L, n)
        ||c' - c|| / ||c|| of the pooled code, which is what the map sees.
    units : ndarray of int64, shape (E, L, n)
        BMU of the perturbed image: the path.
    bmu_changed : ndarray of bool, shape (E, L, n)
    grid_distance : ndarray of float64, shape (E, L, n)
        Steps on the map from the clean to the perturbed BMU; NaN where a layer's quantizer has no grid.
    quantization_error : ndarray of float64, shape (E, L, n)
        Distance of the perturbed code to its BMU, in units of the activation.
    regions : ndarray of int64, shape (E, L, n)
        Output that the BMU stands for: the majority in its code table; -1 for a unit without one.
    parting_layer : ndarray of int64, shape (E, n)
        Index of the first layer with another BMU than the clean image; L if there is none.
    entry_layer : ndarray of int64, shape (E, n)
        For successes: index of the layer from which on the path stays in the region of its new answer; L if even the
        last BMU lies elsewhere. -1 where the answer did not change, or no tables were given.
    """

    predictions: np.ndarray
    success: np.ndarray
    l2_norm: np.ndarray
    linf_norm: np.ndarray
    relative_change: np.ndarray
    cosine_change: np.ndarray
    code_change: np.ndarray
    units: np.ndarray
    bmu_changed: np.ndarray
    grid_distance: np.ndarray
    quantization_error: np.ndarray
    regions: np.ndarray
    parting_layer: np.ndarray
    entry_layer: np.ndarray


@dataclass(frozen=True, eq=False)
class Propagation:
    """How one kind of perturbation travels, averaged over the images: what :class:`Trace` and its noise share.

    Attributes
    ----------
    paths : Paths
        The same, image by image.
    """

    paths: Paths = field(repr=False)

    @property
    def success(self) -> np.ndarray:
        """Share of images that are answered otherwise than before (with targets: by the target), shape (E,)."""
        return self.paths.success.mean(1)

    @property
    def relative_change(self) -> np.ndarray:
        """Mean of ||a' - a|| / ||a||, shape (E, L)."""
        return self.paths.relative_change.mean(2)

    @property
    def cosine_change(self) -> np.ndarray:
        """Mean of 1 - cos(a', a), shape (E, L)."""
        return self.paths.cosine_change.mean(2)

    @property
    def code_change(self) -> np.ndarray:
        """Mean of ||c' - c|| / ||c|| of the pooled code, shape (E, L)."""
        return self.paths.code_change.mean(2)

    @property
    def bmu_changed(self) -> np.ndarray:
        """Share of images whose BMU is another, shape (E, L)."""
        return self.paths.bmu_changed.mean(2)

    @property
    def grid_distance(self) -> np.ndarray:
        """Mean number of steps on the map, shape (E, L)."""
        return self.paths.grid_distance.mean(2)

    @property
    def quantization_error(self) -> np.ndarray:
        """Mean distance of a code to its BMU, shape (E, L)."""
        return self.paths.quantization_error.mean(2)

    @property
    def parted(self) -> np.ndarray:
        """Share of images whose path has left the clean one at this layer or before, shape (E, L)."""
        return (self.paths.parting_layer[:, None, :] <= np.arange(self._n_layers)[:, None]).mean(2)

    @property
    def entered(self) -> np.ndarray:
        """Share of the successes that from this layer on run in the region of the new answer, shape (E, L).

        NaN where no answer changed, or without code tables.
        """
        entry = self.paths.entry_layer
        known = (entry >= 0).sum(1)[:, None]
        inside = ((entry[:, None, :] >= 0) & (entry[:, None, :] <= np.arange(self._n_layers)[:, None])).sum(2)
        return np.where(known > 0, inside / np.maximum(known, 1), np.nan)

    def interval(
        self, measure: str, *, confidence: float = 0.95, n_bootstrap: int = 1000, random_state: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Confidence interval of a mean over the images; model, maps and perturbations are held fixed.

        Parameters
        ----------
        measure : str
            Name of one of the averages above.
        confidence : float
        n_bootstrap : int
            Resamples of the images, for averages; shares get Wilson's interval instead.
        random_state : int

        Returns
        -------
        low, high : ndarray of float64
            Of the same shape as the average itself; NaN where that is NaN.

        Raises
        ------
        ValueError
            If there is no such measure.
        """
        if measure not in SHARES + AVERAGES:
            known = sorted(SHARES + AVERAGES)
            raise ValueError(f"measure must be one of {known}, got {measure!r}{did_you_mean(measure, known)}")
        if measure in AVERAGES:
            values = getattr(self.paths, measure)
            return bootstrap_interval(values, confidence=confidence, n_bootstrap=n_bootstrap, random_state=random_state)
        share = getattr(self, measure)
        n = np.full(share.shape, self.paths.success.shape[1])
        if measure == "entered":
            n[:] = (self.paths.entry_layer >= 0).sum(1)[:, None]
        low, high = np.full(share.shape, np.nan), np.full(share.shape, np.nan)
        for at in zip(*np.nonzero(n), strict=True):
            low[at], high[at] = wilson_interval(round(share[at] * n[at]), int(n[at]), confidence=confidence)
        return low, high

    @property
    def _n_layers(self) -> int:
        return self.paths.units.shape[1]


@dataclass(frozen=True, eq=False)
class Trace(Propagation):
    """An attack's way through a network, beside random noise of equal length.

    The averages of :class:`Propagation` (``trace.relative_change``...) are those of the attack, ``trace.noise`` has the
    same for the noise; ``trace.paths`` and ``trace.noise.paths`` tell it image by image.

    Attributes
    ----------
    paths : Paths
    noise : Propagation
    layers : tuple of str
    epsilons : ndarray of float64, shape (E,)
    norm : {"linf", "l2"}
    index : ndarray of int64, shape (n,)
        Which of the given images are traced: those that the model answers correctly when clean (with targets: and
        whose target is another class), since only they have something to lose.
    labels : ndarray of int64, shape (n,)
        Their labels, which are also the clean answers.
    targets : ndarray of int64, shape (n,), or None
    accuracy : float
        Share of all given images that the model answers correctly when clean.
    clean_units : ndarray of int64, shape (L, n)
        BMUs of the clean images.
    clean_regions : ndarray of int64, shape (L, n)
        Output that the clean BMU stands for; -1 without a table.
    clean_quantization_error : ndarray of float64, shape (L, n)
    """

    noise: Propagation
    layers: tuple[str, ...]
    epsilons: np.ndarray
    norm: str
    index: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    targets: np.ndarray | None = field(repr=False)
    accuracy: float
    clean_units: np.ndarray = field(repr=False)
    clean_regions: np.ndarray = field(repr=False)
    clean_quantization_error: np.ndarray = field(repr=False)

    def budget(self, epsilon: float) -> int:
        """Index of a budget, or ValueError if it was not traced."""
        found = np.flatnonzero(np.isclose(self.epsilons, epsilon, rtol=1e-6, atol=1e-9))
        if not len(found):
            raise ValueError(f"epsilon must be one of {self.epsilons.round(5).tolist()}, got {epsilon!r}")
        return int(found[0])

    def layer(self, name: str) -> int:
        """Index of a layer, or ValueError if it was not traced."""
        if name not in self.layers:
            raise ValueError(f"layer must be one of {list(self.layers)}, got {name!r}{did_you_mean(name, self.layers)}")
        return self.layers.index(name)


def transition_matrix(
    trace: Trace, layer: str, epsilon: float, *, noise: bool = False, n_classes: int | None = None
) -> np.ndarray:
    """Count from which region of a layer's map to which the images were moved.

    Parameters
    ----------
    trace : Trace
        Made with code tables.
    layer : str
    epsilon : float
        One of the traced budgets.
    noise : bool
        Count for the noise instead of the attack.
    n_classes : int, optional
        The largest region seen plus one if None.

    Returns
    -------
    ndarray of int64, shape (n_classes, n_classes)
        Row: the output that the clean image's unit stands for. Column: that of the perturbed image's unit. Images with
        a unit that no table knows are left out.

    Raises
    ------
    ValueError
        If the trace has no regions, or did not visit this layer or budget.
    """
    at = trace.layer(layer)
    before = trace.clean_regions[at]
    after = (trace.noise if noise else trace).paths.regions[trace.budget(epsilon), at]
    if (trace.clean_regions < 0).all():
        raise ValueError("expected a trace with regions, got one without; pass tables= to trace_attack")
    if n_classes is None:
        n_classes = 1 + max(int(trace.clean_regions.max()), int(trace.paths.regions.max()), int(trace.labels.max()))
    known = (before >= 0) & (after >= 0)
    return np.bincount(before[known] * n_classes + after[known], minlength=n_classes**2).reshape(n_classes, n_classes)


def bootstrap_interval(
    values, *, confidence: float = 0.95, n_bootstrap: int = 1000, random_state: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of means over the last axis (Efron 1979).

    Parameters
    ----------
    values : array-like of float, shape (..., n)
        The same n images in each row: a resample draws images, so rows stay paired.
    confidence : float
    n_bootstrap : int
    random_state : int

    Returns
    -------
    low, high : ndarray of float64, shape (...)

    Examples
    --------
    >>> low, high = bootstrap_interval([[0.0, 1.0] * 50, [3.0] * 100])
    >>> low.round(1), high.round(1)
    (array([0.4, 3. ]), array([0.6, 3. ]))
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    rng = np.random.default_rng(random_state)
    weights = rng.multinomial(n, np.full(n, 1 / n), check_count(n_bootstrap, "n_bootstrap")) / n
    means = values.reshape(-1, n) @ weights.T
    tail = (1 - check_confidence(confidence)) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=1)
    return low.reshape(values.shape[:-1]), high.reshape(values.shape[:-1])
