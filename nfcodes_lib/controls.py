"""What needs no map and belongs beside it: occupancy, k-means of equal size, raw on/off patterns, silhouette.

A map of K units can show at most K patterns, whatever the data. So the number is a choice, and the questions with
an answer are others: how many of the units are used, and how evenly (:func:`occupancy`); does k-means with as many
centres do as well without any order among them (:func:`kmeans_units`); how many patterns are there before anything is
quantized (:func:`binary_patterns`)? And whether classes cluster can be asked of the codes
alone (:func:`code_silhouette`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import xlogy

from ._indices import check_count, check_indices
from .statistics import permutation_p_value


@dataclass(frozen=True)
class Occupancy:
    """How many units of a map are in use, and how evenly.

    Attributes
    ----------
    counts : ndarray of int64, shape (n_units,)
        Samples per unit.
    n_occupied : int
        Units with at least one sample.
    occupied : float
        Share of the units with at least one sample.
    entropy : float
        Entropy of the units' shares in bits; log2(n_units) if all are used alike.
    perplexity : float
        2 ** entropy: the number of equally used units that would have this entropy.
    n_samples : int
    """

    counts: np.ndarray = field(repr=False)
    n_occupied: int
    occupied: float
    entropy: float
    perplexity: float
    n_samples: int


def occupancy(units, *, n_units: int) -> Occupancy:
    """Count how many units a set of samples uses.

    Parameters
    ----------
    units : array-like of int, shape (n_samples,)
        Flat unit index of each sample.
    n_units : int
        Units of the map, empty ones included.

    Returns
    -------
    Occupancy

    Raises
    ------
    ValueError
        If `units` is empty, not of integers, or out of range.

    Notes
    -----
    A set of n samples cannot use more than n units: compare sets of equal size.

    Examples
    --------
    >>> occupancy([0, 0, 1, 1], n_units=4)
    Occupancy(n_occupied=2, occupied=0.5, entropy=1.0, perplexity=2.0, n_samples=4)
    """
    n_units = check_count(n_units, "n_units")
    units = check_indices(units, "units", n_values=n_units, n_values_name="n_units")
    counts = np.bincount(units, minlength=n_units)
    shares = counts / len(units)
    entropy = float(-xlogy(shares, shares).sum() / np.log(2)) + 0.0
    n_occupied = int(np.count_nonzero(counts))
    return Occupancy(
        counts=counts,
        n_occupied=n_occupied,
        occupied=n_occupied / n_units,
        entropy=entropy,
        perplexity=2.0**entropy,
        n_samples=len(units),
    )


@dataclass(frozen=True)
class KMeansUnits:
    """The centres of k-means, asked like a map: the control for what the map's order adds.

    Attributes
    ----------
    codebook : ndarray of float32, shape (n_units, n_features)
        The centres. Their order means nothing.
    """

    codebook: np.ndarray = field(repr=False)

    def predict(self, x) -> np.ndarray:
        """Index of the nearest centre of each sample: ndarray of int64, shape (n_samples,)."""
        return self._nearest(x)[0]

    def quantization_error(self, x) -> float:
        """Mean Euclidean distance of the samples to their nearest centres, in units of the activations."""
        return float(self._nearest(x)[1].mean(dtype=np.float64))

    def _nearest(self, x) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.metrics import pairwise_distances_argmin_min

        x = check_activations(x)
        if x.shape[1] != self.codebook.shape[1]:
            raise ValueError(
                f"expected activations of {self.codebook.shape[1]} units as in the fit, got {x.shape[1]}; "
                "capture the same layer with the same pool"
            )
        indices, distances = pairwise_distances_argmin_min(x, self.codebook)
        return indices.astype(np.int64), distances


def kmeans_units(activations, *, n_units: int, n_init: int = 1, random_state: int = 0) -> KMeansUnits:
    """Fit k-means with as many centres as a map has units.

    Parameters
    ----------
    activations : array-like of float, shape (n_samples, n_features)
        The codes that the map was trained on.
    n_units : int
        Rows times columns of the map.
    n_init : int
        Starts, of which the best is kept.
    random_state : int

    Returns
    -------
    KMeansUnits

    Raises
    ------
    ValueError
        If the activations are not a finite table, or there are fewer samples than units.

    Examples
    --------
    >>> control = kmeans_units([[0.0], [0.1], [5.0], [5.1]], n_units=2)
    >>> units = control.predict([[0.2], [4.0], [4.5]])
    >>> bool(units[0] != units[1]), bool(units[1] == units[2])
    (True, True)
    """
    from sklearn.cluster import KMeans

    x = check_activations(activations)
    n_units = check_count(n_units, "n_units")
    if len(x) < n_units:
        raise ValueError(
            f"expected at least n_units = {n_units} samples, got {len(x)}; pass more or ask for fewer units"
        )
    fitted = KMeans(n_units, n_init=n_init, max_iter=100, random_state=random_state).fit(x)
    return KMeansUnits(codebook=fitted.cluster_centers_.astype(np.float32))


@dataclass(frozen=True)
class BinaryPatterns:
    """How many on/off patterns a layer shows.

    Attributes
    ----------
    n_patterns : int
        Distinct patterns.
    n_once : int
        Patterns that a single sample shows.
    unique_share : float
        n_patterns / n_samples: 1 if no two samples agree.
    active_share : float
        Mean share of features that are on.
    n_samples, n_features : int
    """

    n_patterns: int
    n_once: int
    unique_share: float
    active_share: float
    n_samples: int
    n_features: int


def binary_patterns(activations, *, threshold=0.0) -> BinaryPatterns:
    """Count the distinct on/off patterns of a layer: which features lie above the threshold.

    Parameters
    ----------
    activations : array-like of float, shape (n_samples, ...)
        Activations after the ReLU, as they come (``pool="none"``). Pooled over space they are nearly always positive,
        which leaves one pattern, all on; then pass a threshold such as the median of each feature.
    threshold : float or array-like of float, shape (...)
        A feature is on above it.

    Returns
    -------
    BinaryPatterns

    Raises
    ------
    ValueError
        If the activations are not finite or lack an axis of features.

    Examples
    --------
    >>> found = binary_patterns([[0.0, 2.0], [0.0, 3.0], [1.0, 0.0]])
    >>> found.n_patterns, found.n_once
    (2, 1)
    """
    x = np.asarray(activations)
    n_samples = len(x) if x.ndim else 0
    on = check_activations(x.reshape(n_samples, -1) if x.ndim > 2 else x) > np.asarray(threshold).reshape(-1)
    packed = np.packbits(on, axis=1)
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    counts = np.unique(rows, return_counts=True)[1]
    return BinaryPatterns(
        n_patterns=len(counts),
        n_once=int(np.count_nonzero(counts == 1)),
        unique_share=len(counts) / n_samples,
        active_share=float(on.mean()),
        n_samples=n_samples,
        n_features=on.shape[1],
    )


@dataclass(frozen=True)
class CodeSilhouette:
    """How well classes separate in the space of the codes, without any map.

    Attributes
    ----------
    silhouette : float
        Mean over the sampled images, from -1 to 1; above 0 if a sample is closer to its own class than to the next.
    per_class : ndarray of float64, shape (n_classes,)
        Mean over the sampled images of each class; NaN for a class without one.
    null : ndarray of float64, shape (n_permutations,)
        `silhouette` with the labels shuffled.
    p_value : float
        (1 + permutations at least as large) / (1 + permutations).
    n_samples : int
        Images that were sampled.
    """

    silhouette: float
    per_class: np.ndarray
    null: np.ndarray = field(repr=False)
    p_value: float
    n_samples: int


def code_silhouette(
    codes, labels, *, n_samples: int = 1000, metric: str = "euclidean", n_permutations: int = 99, random_state: int = 0
) -> CodeSilhouette:
    """Silhouette of the classes in the space of the codes (Rousseeuw 1987, J. Comput. Appl. Math. 20).

    Parameters
    ----------
    codes : array-like of float, shape (n, n_features)
    labels : array-like of int, shape (n,)
    n_samples : int
        Images to draw at random; time and memory grow with its square.
    metric : str
        Any metric of scikit-learn's ``pairwise_distances``.
    n_permutations : int
    random_state : int

    Returns
    -------
    CodeSilhouette

    Raises
    ------
    ValueError
        If codes and labels do not fit each other, or the sample holds fewer than two classes.

    Examples
    --------
    >>> codes = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> round(code_silhouette(codes, [0, 0, 1, 1], n_permutations=9).silhouette, 2)
    0.98
    """
    from sklearn.metrics import pairwise_distances, silhouette_samples

    codes = check_activations(codes)
    labels = check_indices(labels, "labels")
    if len(codes) != len(labels):
        raise ValueError(f"codes and labels must describe the same samples, got {len(codes)} and {len(labels)}")
    n_permutations = check_count(n_permutations, "n_permutations")
    rng = np.random.default_rng(random_state)
    n_classes = int(labels.max()) + 1
    chosen = rng.permutation(len(codes))[: check_count(n_samples, "n_samples", minimum=3)]
    labels = labels[chosen]
    if not 2 <= len(np.unique(labels)) < len(labels):
        raise ValueError(
            f"expected two classes or more, and fewer than samples, got {len(np.unique(labels))} classes "
            f"in {len(labels)} samples; raise n_samples or check the labels"
        )
    distances = pairwise_distances(codes[chosen], metric=metric)
    np.fill_diagonal(distances, 0)  # rounding leaves a trace there, which scikit-learn refuses
    values = silhouette_samples(distances, labels, metric="precomputed")
    null = np.array(
        [
            silhouette_samples(distances, rng.permutation(labels), metric="precomputed").mean()
            for _ in range(n_permutations)
        ]
    )
    sizes = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=values, minlength=n_classes)
    return CodeSilhouette(
        silhouette=float(values.mean()),
        per_class=np.divide(sums, sizes, out=np.full(n_classes, np.nan), where=sizes > 0),
        null=null,
        p_value=permutation_p_value(float(values.mean()), null),
        n_samples=len(labels),
    )


def check_activations(activations) -> np.ndarray:
    """Return the activations as a finite float array of shape (n_samples, n_features), at least one of each."""
    x = np.asarray(activations)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"activations must have shape (n_samples, n_features), got {x.shape}; flatten the axes after the first"
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"activations must be floats, got dtype {x.dtype}; are these units instead of activations?")
    if not np.isfinite(x).all():
        raise ValueError(f"activations must be finite, got {np.count_nonzero(~np.isfinite(x))} that are not")
    return x
