"""The few statistics that several chapters share: p-values, intervals, a trend over depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ._indices import check_confidence, check_count


def permutation_p_value(observed: float, null: np.ndarray, *, smaller: bool = False) -> float:
    """(1 + number of permutations at least as extreme) / (1 + permutations): never 0 (Phipson and Smyth 2010).

    Parameters
    ----------
    observed : float
    null : ndarray of float, shape (n_permutations,)
    smaller : bool
        Whether small values are the extreme ones.
    """
    tolerance = 1e-12 * max(1.0, abs(observed))  # equal tables must count as equal, whatever the order of their sums
    extreme = null <= observed + tolerance if smaller else null >= observed - tolerance
    return float((1 + np.count_nonzero(extreme)) / (1 + len(null)))


def z_score(value: float, null: np.ndarray) -> float:
    """Distance of `value` from the mean of the null in its standard deviations; NaN where the null does not vary."""
    spread = null.std()
    return float((value - null.mean()) / spread) if spread > 0 else float("nan")


def wilson_interval(n_hits: int, n_samples: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: it stays within [0, 1] and holds its coverage near both ends.

    Parameters
    ----------
    n_hits, n_samples : int
    confidence : float

    Returns
    -------
    tuple of float

    Examples
    --------
    >>> low, high = wilson_interval(10, 10)
    >>> round(low, 3), round(high, 3)
    (0.722, 1.0)
    """
    z = float(stats.norm.ppf((1 + check_confidence(confidence)) / 2))
    n_samples = check_count(n_samples, "n_samples")
    share = n_hits / n_samples
    centre = (share + z * z / (2 * n_samples)) / (1 + z * z / n_samples)
    half = z / (1 + z * z / n_samples) * np.sqrt(share * (1 - share) / n_samples + z * z / (4 * n_samples**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def recentred_interval(
    value: float, replicates: np.ndarray, *, confidence: float = 0.95, ceiling: float = np.inf
) -> tuple[float, float]:
    """Bootstrap interval that takes the spread of the replicates and not their shift.

    `value` + quantiles of (replicates - their mean): for statistics such as mutual information, which duplicates in a
    bootstrap sample push to one side.

    Parameters
    ----------
    value : float
        The statistic on the sample itself.
    replicates : ndarray of float, shape (n_bootstrap,)
    confidence : float
    ceiling : float
        The most that the statistic can be.

    Returns
    -------
    tuple of float

    Examples
    --------
    >>> low, high = recentred_interval(0.5, np.linspace(0.7, 0.9, 101))
    >>> round(low, 3), round(high, 3)
    (0.405, 0.595)
    """
    tail = (1 - check_confidence(confidence)) / 2
    low, high = value + np.quantile(replicates - np.mean(replicates), [tail, 1 - tail])
    return float(low), float(min(high, ceiling))


def student_interval(values, *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean.

    Examples
    --------
    >>> low, high = student_interval([1.0, 2.0, 3.0])
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    values = np.asarray(values, dtype=float)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


@dataclass(frozen=True)
class DepthTrend:
    """How a measure moves from the first layer to the last, over training seeds.

    Attributes
    ----------
    slopes : ndarray of float64, shape (n_seeds,)
        Least-squares slope of each seed, in units of the measure per layer.
    slope : float
        Their mean.
    interval : tuple of float
        Student's t interval of the mean slope; NaN with a single seed.
    kendall_tau : ndarray of float64, shape (n_seeds,)
        Kendall's tau-b of the measure with depth: 1 where every layer lies above the one before.
    page_p_value : float
        Page's trend test: the chance of so consistent a rise over the seeds if depth did not matter; NaN with a single
        seed or with fewer than three layers.
    confidence : float
    """

    slopes: np.ndarray
    slope: float
    interval: tuple[float, float]
    kendall_tau: np.ndarray
    page_p_value: float
    confidence: float


def depth_trend(values_per_layer_over_seeds, *, confidence: float = 0.95) -> DepthTrend:
    """Ask whether a measure rises with depth.

    Parameters
    ----------
    values_per_layer_over_seeds : array-like of float, shape (n_seeds, n_layers)
        One row per independently trained network, one column per layer from shallow to deep.
    confidence : float
        Coverage of the interval.

    Returns
    -------
    DepthTrend

    Raises
    ------
    ValueError
        If the values are not two-dimensional, not finite, or hold fewer than two layers.

    Notes
    -----
    The layers of one network are not independent of each other, its seeds are: so each seed is first reduced to one
    slope, and the interval is taken over slopes. It is Student's, not a bootstrap's: three seeds have ten distinct
    resamples, whose percentiles cover the mean about three times in four instead of nineteen times in twenty. Page's
    test (Page 1963, J. Am. Stat. Assoc. 58) ranks the layers within each seed.

    Examples
    --------
    >>> trend = depth_trend([[0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.3, 0.5], [0.2, 0.3, 0.4, 0.6]])
    >>> round(trend.slope, 3), trend.interval[0] > 0, trend.page_p_value < 0.01
    (0.117, True, True)
    """
    values = np.asarray(values_per_layer_over_seeds, dtype=np.float64)
    confidence = check_confidence(confidence)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(
            f"values must have shape (n_seeds, n_layers) with at least two layers, got {values.shape}; "
            "put each seed in a row, also a single one"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite, got {np.count_nonzero(~np.isfinite(values))} that are not")
    n_seeds, n_layers = values.shape
    depth = np.arange(n_layers) - (n_layers - 1) / 2
    slopes = values @ depth / (depth @ depth)
    testable = n_seeds > 1 and n_layers > 2
    return DepthTrend(
        slopes=slopes,
        slope=float(slopes.mean()),
        interval=student_interval(slopes, confidence=confidence) if n_seeds > 1 else (np.nan, np.nan),
        kendall_tau=np.array([stats.kendalltau(depth, row).statistic for row in values]),
        page_p_value=float(stats.page_trend_test(values).pvalue) if testable else float("nan"),
        confidence=confidence,
    )
