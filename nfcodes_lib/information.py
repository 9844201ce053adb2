"""How much a unit tells about an output: adjusted mutual information, its null and its interval.

For units U (the BMUs of a map) and outputs O (predictions or labels) of the same n samples,

    I(U; O) = sum_uo p(u, o) log( p(u, o) / (p(u) p(o)) )

is zero only if the table of counts is that of independence. A finite sample never is: 400 units and 10 classes share
information by chance alone. The adjusted mutual information subtracts what chance would give, E[I] with both margins
held, and divides by the most that was to be had (Vinh, Epps and Bailey 2010, JMLR 11):

    AMI = (I - E[I]) / ((H(U) + H(O)) / 2 - E[I])

Two cautions. With many more units than classes, AMI cannot reach 1, because H(U) in the denominator is larger than any
I can be; ``uncertainty_coefficient`` divides by H(O) - E[I] instead and is 1 when the unit determines the output. And
an association is no mechanism: whatever tracks the label tracks the prediction of a good network too, which is what
`strata` is for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy

from ._indices import check_confidence, check_count, check_indices, check_pair
from .statistics import permutation_p_value, recentred_interval, z_score

BITS = float(1 / np.log(2))  # one nat in bits


@dataclass(frozen=True)
class Association:
    """How strongly units and outputs hang together, beside what chance gives.

    Attributes
    ----------
    adjusted_mutual_information : float
        0 on average without association; equal to ``sklearn.metrics.adjusted_mutual_info_score``.
    interval : tuple of float
        Interval of the adjusted mutual information over samples of this size (see :func:`association`).
    uncertainty_coefficient : float
        Share of the outputs' entropy that knowing the unit removes, adjusted for chance: 0 to 1 (Theil's U).
    uncertainty_interval : tuple of float
        Its interval.
    null : ndarray of float64, shape (n_permutations,)
        Adjusted mutual information with the outputs permuted.
    p_value : float
        (1 + permutations at least as large) / (1 + permutations).
    z_score : float
        Distance from the mean of the null in its standard deviations; NaN where the null does not vary.
    mutual_information, expected_mutual_information : float
        I and E[I], in bits.
    unit_entropy, output_entropy : float
        H(U) and H(O), in bits.
    n_samples : int
    confidence : float
    """

    adjusted_mutual_information: float
    interval: tuple[float, float]
    uncertainty_coefficient: float
    uncertainty_interval: tuple[float, float]
    null: np.ndarray
    p_value: float
    z_score: float
    mutual_information: float
    expected_mutual_information: float
    unit_entropy: float
    output_entropy: float
    n_samples: int
    confidence: float


def association(
    units,
    outputs,
    *,
    strata=None,
    n_permutations: int = 1000,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Association:
    """Measure the association of units and outputs: adjusted mutual information, null, interval.

    Parameters
    ----------
    units : array-like of int, shape (n_samples,)
        Flat unit index of each sample (``som.predict``).
    outputs : array-like of int, shape (n_samples,)
        Prediction, or label, of the same samples.
    strata : array-like of int, shape (n_samples,), optional
        Permute only within these groups. With the labels as strata, `p_value` asks whether units and predictions are
        associated beyond what the label explains; the effect itself does not change.
    n_permutations : int
        Permutations of the outputs.
    n_resamples : int
        Half-samples behind the interval.
    confidence : float
        Coverage of the interval.
    random_state : int

    Returns
    -------
    Association

    Raises
    ------
    ValueError
        If the arrays are empty, are not integers, differ in length, or a number is out of range.

    Notes
    -----
    A permutation keeps both margins, so E[I] and the entropies are computed once. Where units or outputs are constant
    there is nothing to associate: the result is 0 with p = 1. (scikit-learn answers 1 if both are constant.)

    The interval comes from half-samples: halves of the samples drawn without replacement, whose spread about their mean
    is that of the whole sample's statistic (the delete-half jackknife; Shao and Wu 1989, Ann. Stat. 17). A bootstrap
    would not do: images drawn with replacement come in duplicates, which always share their unit and their output, so
    all its replicates lie too high. In simulations a 95 % interval of half-samples held the mean AMI of samples of its
    size in 89 to 100 % of cases, depending on the setting, the bootstrap's percentile and basic intervals in 0 to 24 %
    (``tests/benchmarks/bench_association.py``).

    The interval holds network and map fixed, so it says nothing about other training seeds. Nor does it cover the value
    of infinitely many samples, which AMI misses to either side (0.43 for 0.50 with 2,000 samples on 400 units, 0.26 for
    0.23 with 500 on 20): compare layers and networks at equal numbers of samples and units only.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> outputs = rng.integers(0, 2, 500)
    >>> units = 2 * outputs + rng.integers(0, 2, 500)          # four units, each pure
    >>> found = association(units, outputs, n_permutations=99, n_resamples=99)
    >>> round(found.uncertainty_coefficient, 2), round(found.adjusted_mutual_information, 2), found.p_value
    (1.0, 0.66, 0.01)
    """
    units, outputs = check_pair(units, outputs)
    if len(units) < 2:
        raise ValueError("units and outputs must hold at least two samples to be associated, got one")
    n_permutations = check_count(n_permutations, "n_permutations")
    n_resamples = check_count(n_resamples, "n_resamples", minimum=2)
    confidence = check_confidence(confidence)
    rng = np.random.default_rng(random_state)
    units, outputs = (np.unique(values, return_inverse=True)[1].ravel() for values in (units, outputs))
    n_samples, n_outputs = len(units), int(outputs.max()) + 1
    shape = (int(units.max()) + 1, n_outputs)
    counts = np.bincount(units * n_outputs + outputs, minlength=shape[0] * n_outputs).reshape(shape)
    observed = _adjusted(counts)

    null = np.zeros(n_permutations)
    if min(shape) > 1:
        cell = units * n_outputs
        margins = -_sum_n_log_n(counts.sum(1)) - _sum_n_log_n(counts.sum(0)) + xlogy(n_samples, n_samples)
        n_log_n = xlogy(np.arange(n_samples + 1), np.arange(n_samples + 1))
        for i, shuffled in enumerate(_permutations(outputs, strata, n_permutations, rng)):
            joint = n_log_n[np.bincount(cell + shuffled)].sum()
            null[i] = (joint + margins) / n_samples
        expected, ceiling = observed["expected"], (observed["unit_entropy"] + observed["output_entropy"]) / 2
        null = _away_from_zero(null - expected) / _away_from_zero(ceiling - expected)

    replicates = np.empty((n_resamples, 2))
    cells = units * n_outputs + outputs
    for i in range(n_resamples):
        half = rng.permutation(cells)[: n_samples // 2]
        found = _adjusted(np.bincount(half, minlength=counts.size).reshape(shape))
        replicates[i] = found["ami"], found["uncertainty"]
    interval, uncertainty_interval = (
        recentred_interval(value, values, confidence=confidence, ceiling=1.0)
        for value, values in zip((observed["ami"], observed["uncertainty"]), replicates.T, strict=True)
    )

    return Association(
        adjusted_mutual_information=observed["ami"],
        interval=interval,
        uncertainty_coefficient=observed["uncertainty"],
        uncertainty_interval=uncertainty_interval,
        null=null,
        p_value=permutation_p_value(observed["ami"], null),
        z_score=z_score(observed["ami"], null),
        mutual_information=observed["mutual"] * BITS,
        expected_mutual_information=observed["expected"] * BITS,
        unit_entropy=observed["unit_entropy"] * BITS,
        output_entropy=observed["output_entropy"] * BITS,
        n_samples=n_samples,
        confidence=confidence,
    )


def expected_mutual_information(row_sums, column_sums) -> float:
    """E[I] of a table with these margins if rows and columns are independent, in nats.

    Every cell of such a table follows a hypergeometric distribution, whose sum is exact (Vinh, Epps and Bailey 2010,
    eq. 24a). Equal margins give equal terms, so only the distinct ones are computed.

    Parameters
    ----------
    row_sums, column_sums : array-like of int, shapes (n_rows,) and (n_columns,)
        Non-negative counts; both add up to the number of samples n.

    Returns
    -------
    float

    Examples
    --------
    >>> round(expected_mutual_information([2, 2], [2, 2]), 4)      # two of six tables are perfect: log(2) / 3
    0.231
    """
    (a, a_times), (b, b_times) = (np.unique(sums, return_counts=True) for sums in (row_sums, column_sums))
    n = int(a @ a_times)
    times = np.outer(a_times, b_times).ravel()
    a, b = np.repeat(a, len(b)), np.tile(b, len(a))
    first, last = np.maximum(1, a + b - n), np.minimum(a, b)  # the values that the cell can take, beside 0
    length = np.maximum(last - first + 1, 0)
    pair = np.repeat(np.arange(len(a)), length)
    k = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + first[pair]
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    log = np.log(np.maximum(np.arange(n + 1), 1))
    of_pair = log_factorial[a] + log_factorial[b] + log_factorial[n - a] + log_factorial[n - b] - log_factorial[n]
    a, b, of_pair = a[pair], b[pair], of_pair[pair]
    of_cell = log_factorial[k] + log_factorial[a - k] + log_factorial[b - k] + log_factorial[n - a - b + k]
    information = k / n * (log[n] + log[k] - log[a] - log[b])
    return float(np.sum(times[pair] * information * np.exp(of_pair - of_cell)))


def _adjusted(counts: np.ndarray) -> dict[str, float]:
    """Entropies, I and E[I] in nats, AMI and adjusted uncertainty coefficient of a table of counts (units, outputs)."""
    rows, columns = counts.sum(1), counts.sum(0)
    n = int(rows.sum())
    log_n = np.log(n)
    unit_entropy, output_entropy = (float(log_n - _sum_n_log_n(sums) / n) for sums in (rows, columns))
    result = {"unit_entropy": unit_entropy, "output_entropy": output_entropy}
    if min(np.count_nonzero(rows), np.count_nonzero(columns)) < 2:
        return result | {"mutual": 0.0, "expected": 0.0, "ami": 0.0, "uncertainty": 0.0}
    mutual = float((_sum_n_log_n(counts) - _sum_n_log_n(rows) - _sum_n_log_n(columns)) / n + log_n)
    expected = expected_mutual_information(rows, columns)
    ami = _away_from_zero(mutual - expected) / _away_from_zero((unit_entropy + output_entropy) / 2 - expected)
    uncertainty = _away_from_zero(mutual - expected) / _away_from_zero(output_entropy - expected)
    return result | {"mutual": mutual, "expected": expected, "ami": float(ami), "uncertainty": float(uncertainty)}


def _sum_n_log_n(counts: np.ndarray) -> float:
    """Sum of n log n over the counts, with 0 log 0 = 0."""
    return float(xlogy(counts, counts).sum())


def _away_from_zero(value):
    """Keep both halves of a ratio from being exactly zero, as scikit-learn does: signs stay, and 0 / 0 becomes 1."""
    tiny = np.finfo(float).eps
    return np.where(value < 0, np.minimum(value, -tiny), np.maximum(value, tiny))


def _permutations(outputs: np.ndarray, strata, n_permutations: int, rng: np.random.Generator):
    """Yield permuted outputs, within strata if there are any."""
    if strata is None:
        for _ in range(n_permutations):
            yield rng.permutation(outputs)
        return
    strata = check_indices(strata, "strata")
    if len(strata) != len(outputs):
        raise ValueError(
            f"strata must describe the same samples as outputs, got {len(strata)} and {len(outputs)}; "
            "select both with the same index"
        )
    groups = [np.flatnonzero(strata == group) for group in np.unique(strata)]
    shuffled = outputs.copy()
    for _ in range(n_permutations):
        for group in groups:
            shuffled[group] = rng.permutation(outputs[group])
        yield shuffled
