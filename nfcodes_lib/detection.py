"""How well a detector ranks: the area under its ROC curve, with intervals, beside other detectors.

A detector says "wrong" or "attacked" of an image. The area under its ROC curve is the chance that a positive image gets
a higher score than a negative one, ties counted half,

    AUROC = P(s+ > s-) + P(s+ = s-) / 2.

0.5 is chance, for any share of positives. Judge on images on which nothing was fitted. What ranking is good for, and
whether probabilities are true, :mod:`nfcodes_lib.risk` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ._indices import check_confidence, check_count
from ._names import did_you_mean


@dataclass(frozen=True, eq=False)
class Comparison:
    """AUROC of several detectors on the same images, each with its difference to one of them.

    Attributes
    ----------
    names : tuple of str
    auroc : ndarray of float64, shape (k,)
    interval : ndarray of float64, shape (k, 2)
    difference : ndarray of float64, shape (k,)
        AUROC less that of the reference.
    difference_interval : ndarray of float64, shape (k, 2)
        Paired: both detectors see the same resampled images.
    reference : str
    n_positive, n_negative : int
    confidence : float
    """

    names: tuple[str, ...]
    auroc: np.ndarray
    interval: np.ndarray = field(repr=False)
    difference: np.ndarray
    difference_interval: np.ndarray = field(repr=False)
    reference: str
    n_positive: int
    n_negative: int
    confidence: float

    def row(self, name: str) -> int:
        """Index of a detector, or ValueError if it is not compared."""
        if name not in self.names:
            raise ValueError(f"name must be one of {list(self.names)}, got {name!r}{did_you_mean(name, self.names)}")
        return self.names.index(name)

    def verdict(self, name: str) -> str:
        """``"better"`` or ``"worse"`` than the reference if the difference's interval says so, else ``"open"``."""
        low, high = self.difference_interval[self.row(name)]
        return "better" if low > 0 else "worse" if high < 0 else "open"


def compare_detectors(
    suspicions: dict[str, np.ndarray],
    positive,
    *,
    reference: str | None = None,
    groups=None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Comparison:
    """AUROC of each detector with a bootstrap interval, and paired differences to a reference.

    Parameters
    ----------
    suspicions : dict of str -> array-like of float, shape (n,)
        Detector -> score of each image, the higher the more suspicious.
    positive : array-like of bool, shape (n,)
    reference : str, optional
        The detector to beat; the first one if None.
    groups : array-like of int, shape (n,), optional
        Images that belong together, such as an image and its attacked twin: the bootstrap then draws groups. Without
        them it draws positives and negatives apart (stratified).
    n_bootstrap : int
    confidence : float
        Coverage of the percentile intervals; the detectors themselves are held fixed.
    random_state : int

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If scores, positives and groups do not fit each other, or the reference is none of the detectors.

    Examples
    --------
    >>> positive = np.arange(200) < 100
    >>> rng = np.random.default_rng(0)
    >>> found = compare_detectors({"coin": rng.normal(size=200), "oracle": positive.astype(float)}, positive)
    >>> found.auroc[1], found.verdict("oracle")
    (np.float64(1.0), 'better')
    """
    if not suspicions:
        raise ValueError("suspicions must hold at least one detector, got none")
    positive = check_positive(positive)
    scores = {name: check_suspicion(values, len(positive), name) for name, values in suspicions.items()}
    names = tuple(scores)
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise ValueError(f"reference must be one of {list(names)}, got {reference!r}{did_you_mean(reference, names)}")
    weights = _resamples(positive, groups, check_count(n_bootstrap, "n_bootstrap"), random_state)
    observed = np.array([_auroc(values, positive, np.ones((1, len(positive))))[0] for values in scores.values()])
    replicates = np.array([_auroc(values, positive, weights) for values in scores.values()])
    at = names.index(reference)
    tail = (1 - check_confidence(confidence)) / 2
    return Comparison(
        names=names,
        auroc=observed,
        interval=np.nanquantile(replicates, [tail, 1 - tail], axis=1).T,
        difference=observed - observed[at],
        difference_interval=np.nanquantile(replicates - replicates[at], [tail, 1 - tail], axis=1).T,
        reference=reference,
        n_positive=int(positive.sum()),
        n_negative=int((~positive).sum()),
        confidence=confidence,
    )


def auroc(suspicion, positive) -> float:
    """Area under the ROC curve: the chance that a positive image scores higher than a negative one, ties half.

    Examples
    --------
    >>> auroc([1, 2, 2, 3], [False, False, True, True])
    0.875
    """
    positive = check_positive(positive)
    return float(_auroc(check_suspicion(suspicion, len(positive)), positive, np.ones((1, len(positive))))[0])


def _resamples(positive, groups, n_bootstrap, random_state) -> np.ndarray:
    """How often each image occurs in each resample, shape (n_bootstrap, n)."""
    rng = np.random.default_rng(random_state)
    if groups is None:
        weights = np.empty((n_bootstrap, len(positive)))
        for kind in (positive, ~positive):
            n = int(kind.sum())
            weights[:, kind] = rng.multinomial(n, np.full(n, 1 / n), n_bootstrap)
        return weights
    groups = np.asarray(groups)
    if groups.shape != positive.shape:
        raise ValueError(f"groups must have shape ({len(positive)},) as positive, got {groups.shape}")
    members, member = np.unique(groups, return_inverse=True)
    return rng.multinomial(len(members), np.full(len(members), 1 / len(members)), n_bootstrap)[:, member].astype(float)


def _auroc(values: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under each row of weights."""
    order = np.argsort(values[~positive], kind="stable")
    negatives = values[~positive][order]
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, ~positive][:, order], axis=1, out=below[:, 1:])
    first = np.searchsorted(negatives, values[positive], side="left")
    last = np.searchsorted(negatives, values[positive], side="right")
    won = (below[:, first] + below[:, last]) / 2
    own = weights[:, positive]
    total = own.sum(1) * below[:, -1]
    return np.divide((own * won).sum(1), total, out=np.full(len(weights), np.nan), where=total > 0)


def check_suspicion(values, n: int | None = None, name: str = "suspicion") -> np.ndarray:
    """Return `values` as a flat array of n floats without NaN."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or (n is not None and len(values) != n):
        expected = "(n_samples,) with at least one sample" if n is None else f"({n},)"
        raise ValueError(f"{name} must have shape {expected}, got {values.shape}; pass one score per image")
    if np.isnan(values).any():
        raise ValueError(f"{name} must be numbers, got {np.isnan(values).sum()} NaN; leave those images out")
    return values


def check_positive(positive, n: int | None = None) -> np.ndarray:
    """Return `positive` as a flat array of bool that holds both kinds."""
    positive = np.asarray(positive)
    if positive.dtype != bool or positive.ndim != 1 or (n is not None and len(positive) != n):
        shape = "(n_samples,)" if n is None else f"({n},)"
        raise ValueError(
            f"positive must be bool of shape {shape}, got {positive.dtype} of shape {positive.shape}; "
            "compare answers with labels to make it"
        )
    if positive.all() or not positive.any():
        raise ValueError(f"positive must hold both kinds of images, got {positive.sum()} of {len(positive)} positive")
    return positive
