"""In how many directions the codes of a layer spread: by the covariance, and by nearest neighbours.

The eigenvalues l of the covariance fall off fast where a few directions hold most of the variance. The participation
ratio, (sum l)^2 / sum l^2, is d for a cloud that is round in d dimensions; :func:`components_for_variance` counts the
eigenvalues themselves. Both see a sheet that is rolled up in many dimensions as thick. :func:`two_nn` looks at nearest
neighbours only: where points are evenly dense in d dimensions, the ratio m of the distances to the second and to the
first has the density d m^-(d + 1) (Facco, d'Errico, Rodriguez and Laio 2017, Sci. Rep. 7). Ansuini et al. (2019,
arXiv:1905.12784) followed both through networks, and found them to disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._indices import check_confidence, check_count
from .controls import check_activations
from .statistics import recentred_interval

ENOUGH = 32  # neighbours to look up: in half of the samples, two of them are left but for one case in 10^8


def variance_spectrum(codes) -> np.ndarray:
    """Eigenvalues of the covariance of the codes, from large to small.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)
        Two samples or more.

    Returns
    -------
    ndarray of float64, shape (min(n_samples, n_features),)

    Raises
    ------
    ValueError
        If the codes are not a finite table of floats, or all alike.

    Examples
    --------
    >>> variance_spectrum([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]]).round(2)
    array([1.33, 0.33])
    """
    x = centred(check_codes(codes))
    gram = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 0) / (len(x) - 1)


def participation_ratio(codes) -> float:
    """Number of directions that the codes spread in, each counted by its variance: (sum l)^2 / sum l^2.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)

    Returns
    -------
    float
        From 1 (a line) to n_features (a ball).

    Notes
    -----
    A sample of n points makes a ball of p dimensions look flatter, about p n / (n + p): take n well above p.

    Examples
    --------
    >>> round(participation_ratio([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 6)
    2.0
    """
    spectrum = variance_spectrum(codes)
    return float(spectrum.sum() ** 2 / (spectrum @ spectrum))


def components_for_variance(codes, *, share: float = 0.9) -> int:
    """How many principal components hold `share` of the variance.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)
    share : float
        Between 0 and 1.

    Returns
    -------
    int

    Examples
    --------
    >>> components_for_variance([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]], share=0.8)
    1
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share!r}; 0.9 asks for 90 % of the variance")
    spectrum = variance_spectrum(codes)
    held = np.cumsum(spectrum) / spectrum.sum()
    return int(np.count_nonzero(held < share - 1e-9)) + 1


@dataclass(frozen=True)
class TwoNN:
    """Intrinsic dimension by two nearest neighbours.

    Attributes
    ----------
    dimension : float
    interval : tuple of float
        Interval over samples of this size (see :func:`two_nn`); NaN without resamples.
    n_used : int
        Samples with a nearest neighbour at a distance above 0.
    n_samples : int
    """

    dimension: float
    interval: tuple[float, float]
    n_used: int
    n_samples: int


def two_nn(
    codes, *, discard: float = 0.1, n_resamples: int = 0, confidence: float = 0.95, random_state: int = 0
) -> TwoNN:
    """Estimate the intrinsic dimension from the first two neighbours of each code.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)
        Time grows with the square of n_samples.
    discard : float
        Share of the largest ratios of which only the number is used: neighbours so uneven tell of holes and borders.
    n_resamples : int
        Half-samples behind the interval; 0 for none.
    confidence : float
        Coverage of the interval.
    random_state : int

    Returns
    -------
    TwoNN

    Raises
    ------
    ValueError
        If fewer than three different codes are left, or all ratios are 1 as on a lattice.

    Notes
    -----
    With m = r2 / r1, log m is exponential of rate d; with the k smallest of n values seen and the others known to be
    larger, d = (k - 1) / (sum of the k values + (n - k) times the largest of them). Facco et al. fit a line to the same
    model instead, which agreed within 1 % on Gaussians of 2 to 20 dimensions. scikit-dimension 0.5.0 has both (this is
    ``method="mle"`` there, equal to six digits); it needs numba, 200 MB to save these few lines.

    The estimate falls short of high dimensions (16 to 17 for 20 with 2,000 Gaussian points), and depends on the number
    of points, which sets the scale: compare at equal numbers. The interval is of half-samples, in each of which
    neighbours are found anew; see :func:`nfcodes_lib.geometry.layer_geometry`.

    Examples
    --------
    >>> plane = np.random.default_rng(0).random((2000, 2)) @ [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]
    >>> found = two_nn(plane, n_resamples=50)
    >>> round(found.dimension, 1), found.interval[0] < 2 < found.interval[1]
    (2.0, True)
    """
    from sklearn.neighbors import NearestNeighbors

    x = check_codes(codes, minimum=3).astype(np.float64)
    if not 0 <= discard < 1:
        raise ValueError(f"discard must be at least 0 and below 1, got {discard!r}; 0.1 leaves out a tenth")
    n_resamples, confidence = check_count(n_resamples, "n_resamples", minimum=0), check_confidence(confidence)
    n_neighbors = min(ENOUGH if n_resamples else 2, len(x) - 1)
    nearest = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(x).kneighbors(return_distance=False)
    dimension, n_used = _from_neighbors(x, nearest[:, :2], discard)
    interval = (float("nan"), float("nan"))
    if n_resamples:
        rng = np.random.default_rng(random_state)
        replicates = np.empty(n_resamples)
        for i in range(n_resamples):
            inside = np.zeros(len(x), dtype=bool)
            inside[rng.permutation(len(x))[: len(x) // 2]] = True
            among = inside[nearest] & (np.cumsum(inside[nearest], axis=1) <= 2)  # the first two in this half
            rows = inside & (among.sum(1) == 2)
            replicates[i] = _from_neighbors(x, nearest[rows][among[rows]].reshape(-1, 2), discard, of=rows)[0]
        interval = recentred_interval(dimension, replicates, confidence=confidence)
    return TwoNN(dimension=dimension, interval=interval, n_used=n_used, n_samples=len(x))


def _from_neighbors(x: np.ndarray, nearest: np.ndarray, discard: float, of=slice(None)) -> tuple[float, int]:
    """Dimension, and number of ratios, from the indices (n, 2) of the first two neighbours of the rows `of`."""
    first, second = (np.linalg.norm(x[of] - x[column], axis=1) for column in nearest.T)  # exactly 0 for equal codes
    first, second = np.minimum(first, second), np.maximum(first, second)
    logs = np.sort(np.log(second[first > 0] / first[first > 0]))
    n, k = len(logs), round(len(logs) * (1 - discard))
    if k < 2:
        raise ValueError(f"expected three different codes or more, got {n} of {len(x)} that differ from all others")
    total = logs[:k].sum() + (n - k) * logs[k - 1]
    if total <= 0:
        raise ValueError("the first two neighbours of each code are equally far, as on a lattice: no dimension to read")
    return float((k - 1) / total), n


def check_codes(codes, *, minimum: int = 2) -> np.ndarray:
    """Return the codes as a finite table of floats with at least `minimum` rows that are not all alike."""
    x = check_activations(codes)
    if len(x) < minimum:
        raise ValueError(f"expected at least {minimum} samples, got {len(x)}")
    if (x == x[0]).all():
        raise ValueError(f"expected codes that differ, got {len(x)} equal ones; is the layer dead?")
    return x


def centred(x: np.ndarray) -> np.ndarray:
    """The codes less their mean, in double precision."""
    x = x.astype(np.float64)
    return x - x.mean(0)
