"""What a detector is good for: the risk that it leaves at a coverage, and whether its probabilities are true.

The risk-coverage curve is the error rate on those images that are still answered when the most suspicious are set
aside. And where a detector says "one in five", one in five should be wrong. Judge on images on which nothing was
fitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ._indices import check_count
from .detection import check_positive, check_suspicion
from .statistics import wilson_interval


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Error rate among the images that are still answered when the most suspicious are set aside.

    Attributes
    ----------
    coverage : ndarray of float64, shape (n,)
        Share of images answered: 1/n, 2/n ... 1.
    risk : ndarray of float64, shape (n,)
        Error rate among them.
    area : float
        Mean of `risk` over all coverages (AURC; Geifman et al. 2018, arXiv:1805.08206); small is good.
    best_area : float
        Of a score that puts every error last.
    chance_area : float
        Of a score that knows nothing: the error rate.
    """

    coverage: np.ndarray = field(repr=False)
    risk: np.ndarray = field(repr=False)
    area: float
    best_area: float
    chance_area: float

    def risk_at(self, coverage: float) -> float:
        """Error rate at the smallest number of images that is at least this share."""
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage must lie in (0, 1], got {coverage!r}")
        return float(self.risk[int(np.ceil(coverage * len(self.risk) - 1e-9)) - 1])


def risk_coverage(suspicion, wrong) -> RiskCoverage:
    """Follow the error rate as the most suspicious images are set aside.

    Parameters
    ----------
    suspicion : array-like of float, shape (n,)
    wrong : array-like of bool, shape (n,)

    Returns
    -------
    RiskCoverage
        Images of equal score enter in random order: the risk is its expectation.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, or no answer is wrong, or all are.

    Examples
    --------
    >>> found = risk_coverage([0.1, 0.2, 0.9, 0.3], [False, False, True, False])
    >>> found.risk
    array([0.  , 0.  , 0.  , 0.25])
    """
    wrong = check_positive(wrong)
    values, block, sizes = np.unique(check_suspicion(suspicion, len(wrong)), return_inverse=True, return_counts=True)
    share = np.bincount(block, weights=wrong, minlength=len(values)) / sizes
    answered = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(np.repeat(share, sizes)) / answered
    best = np.cumsum(np.sort(wrong)) / answered
    return RiskCoverage(answered / len(wrong), risk, float(risk.mean()), float(best.mean()), float(wrong.mean()))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted beside observed shares, in bins of equally many images.

    Attributes
    ----------
    predicted, observed : ndarray of float64, shape (n_bins,)
        Mean probability, and share of positive images.
    interval : ndarray of float64, shape (n_bins, 2)
        Wilson's, of `observed`.
    counts : ndarray of int64, shape (n_bins,)
    error : float
        Expected calibration error: mean of |observed - predicted| over the bins, weighted by their images. It is not 0
        for a perfect detector either, for shares of few images vary.
    brier : float
        Mean squared difference of probability and outcome.
    """

    predicted: np.ndarray
    observed: np.ndarray
    interval: np.ndarray = field(repr=False)
    counts: np.ndarray = field(repr=False)
    error: float
    brier: float


def reliability(probability, positive, *, n_bins: int = 10, confidence: float = 0.95) -> Reliability:
    """Ask whether of the images called positive with probability p a share p is so (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    probability : array-like of float, shape (n,)
        In [0, 1].
    positive : array-like of bool, shape (n,)
    n_bins : int
        Bins hold equally many images, up to ties: errors are rare, and bins of equal width would be empty.
    confidence : float

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        If a probability is none, the arrays do not fit each other, or there are fewer images than bins.

    Examples
    --------
    >>> found = reliability([0.1] * 10 + [0.9] * 10, [True] + [False] * 9 + [True] * 9 + [False], n_bins=2)
    >>> found.observed, round(found.error, 6)
    (array([0.1, 0.9]), 0.0)
    """
    positive = check_positive(positive)
    p = check_suspicion(probability, len(positive), "probability")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probability must lie in [0, 1], got {p.min():g} to {p.max():g}; pass predict_proba's column")
    if check_count(n_bins, "n_bins") > len(p):
        raise ValueError(f"n_bins must be at most the {len(p)} images, got {n_bins}")
    _, block, sizes = np.unique(p, return_inverse=True, return_counts=True)
    middle = (np.cumsum(sizes) - sizes / 2) / len(p)  # rank of each value's middle image, so that ties stay together
    member = np.unique((middle * n_bins).astype(int)[block], return_inverse=True)[1]  # without empty bins
    counts = np.bincount(member)
    hits = np.bincount(member, weights=positive)
    predicted, observed = np.bincount(member, weights=p) / counts, hits / counts
    return Reliability(
        predicted=predicted,
        observed=observed,
        interval=np.array(
            [wilson_interval(int(k), int(n), confidence=confidence) for k, n in zip(hits, counts, strict=True)]
        ),
        counts=counts,
        error=float(np.abs(observed - predicted) @ counts / len(p)),
        brier=float(np.mean((p - positive) ** 2)),
    )
