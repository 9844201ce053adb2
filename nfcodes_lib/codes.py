"""What a unit of a map means: hit maps, code tables, code-to-output accuracy, and the controls beside them.

A unit of a self-organizing map is read as a code: every image with it as best-matching unit (BMU) carries that code.
What the code means is then a table of counts, and from it the estimate

    P(output | unit) = n(unit, output) / n(unit)

(Lee and Vijayan, arXiv:2205.10952, relate units and predictions; the measures here are ours.) Fit the table on some
images and judge it on others: a table with many units and few images is pure by construction. How strong the
association is beside chance, :func:`association` says; what the order of the map adds, :mod:`nfcodes_lib.topography`;
what needs no map at all, :mod:`nfcodes_lib.controls`.

Everything here takes arrays: flat unit indices (``som.predict``), outputs (predictions or labels), activations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import xlogy

from ._indices import check_confidence, check_count, check_indices, check_pair
from .information import Association, association
from .statistics import permutation_p_value, wilson_interval

__all__ = [
    "Association",
    "CodeAccuracy",
    "CodeTable",
    "association",
    "code_accuracy",
    "code_table",
    "hit_map",
    "hit_maps",
]


def hit_map(units, n_rows: int, n_columns: int) -> np.ndarray:
    """Count the samples of each unit, laid out as the map.

    Parameters
    ----------
    units : array-like of int, shape (n_samples,)
        Flat unit indices, row by row.
    n_rows, n_columns : int
        Size of the map.

    Returns
    -------
    ndarray of int64, shape (n_rows, n_columns)

    Raises
    ------
    ValueError
        If `units` is not a flat array of indices of such a map.

    Examples
    --------
    >>> hit_map([0, 5, 5], 2, 3)
    array([[1, 0, 0],
           [0, 0, 2]])
    """
    n_units = check_count(n_rows, "n_rows") * check_count(n_columns, "n_columns")
    units = check_indices(units, "units", n_values=n_units, n_values_name="n_rows * n_columns")
    return np.bincount(units, minlength=n_units).reshape(n_rows, n_columns)


def hit_maps(units, outputs, n_rows: int, n_columns: int, *, n_outputs: int | None = None) -> np.ndarray:
    """One hit map per output.

    Parameters
    ----------
    units, outputs : array-like of int, shape (n_samples,)
    n_rows, n_columns : int
        Size of the map.
    n_outputs : int, optional
        Number of outputs; the largest one seen plus one if None.

    Returns
    -------
    ndarray of int64, shape (n_outputs, n_rows, n_columns)

    Examples
    --------
    >>> hit_maps([0, 5, 5], [1, 0, 1], 2, 3)[1]
    array([[1, 0, 0],
           [0, 0, 1]])
    """
    n_units = check_count(n_rows, "n_rows") * check_count(n_columns, "n_columns")
    counts = contingency(units, outputs, n_units=n_units, n_outputs=n_outputs)
    return np.ascontiguousarray(counts.T).reshape(-1, n_rows, n_columns)


def contingency(units, outputs, *, n_units: int, n_outputs: int | None = None) -> np.ndarray:
    """Count how often unit and output meet: ndarray of int64, shape (n_units, n_outputs)."""
    n_units = check_count(n_units, "n_units")
    if n_outputs is not None:
        n_outputs = check_count(n_outputs, "n_outputs")
    units, outputs = check_pair(units, outputs, n_units=n_units, n_outputs=n_outputs)
    n_outputs = n_outputs or int(outputs.max()) + 1
    return np.bincount(units * n_outputs + outputs, minlength=n_units * n_outputs).reshape(n_units, n_outputs)


@dataclass(frozen=True)
class CodeTable:
    """What each unit stands for, as counted on one set of images.

    Attributes
    ----------
    counts : ndarray of int64, shape (n_units, n_outputs)
    probabilities : ndarray of float64, shape (n_units, n_outputs)
        P(output | unit); rows of NaN for units without a sample.
    n_samples : ndarray of int64, shape (n_units,)
        Samples per unit.
    entropy : ndarray of float64, shape (n_units,)
        Entropy of each unit's row in bits: 0 for a unit of one output, NaN for an empty unit. A unit of few samples
        looks purer than it is.
    majority : ndarray of int64, shape (n_units,)
        The most frequent output (the lowest index of equals); -1 for an empty unit.
    purity : ndarray of float64, shape (n_units,)
        Share of the majority; NaN for an empty unit.
    overall_entropy : float
        Mean entropy of the units, weighted by their samples: H(output | unit) in bits.
    overall_majority : int
        The most frequent output of all.
    overall_purity : float
        Share of all samples that carry their unit's majority.
    """

    counts: np.ndarray
    probabilities: np.ndarray = field(repr=False)
    n_samples: np.ndarray = field(repr=False)
    entropy: np.ndarray = field(repr=False)
    majority: np.ndarray = field(repr=False)
    purity: np.ndarray = field(repr=False)
    overall_entropy: float
    overall_majority: int
    overall_purity: float

    def predict(self, units) -> np.ndarray:
        """Predict each sample's output from its unit alone.

        A unit's answer is its majority; a unit that was empty when the table was made answers with the majority of all
        samples.

        Parameters
        ----------
        units : array-like of int, shape (n_samples,)

        Returns
        -------
        ndarray of int64, shape (n_samples,)

        Raises
        ------
        ValueError
            If a unit is not in the table.
        """
        units = check_indices(units, "units", n_values=len(self.counts), n_values_name="the table's n_units")
        answers = np.where(self.n_samples > 0, self.majority, self.overall_majority)
        return answers[units]


def code_table(units, outputs, *, n_units: int, n_outputs: int | None = None) -> CodeTable:
    """Estimate P(output | unit) from the units and outputs of the same samples.

    Parameters
    ----------
    units : array-like of int, shape (n_samples,)
        Flat unit index of each sample.
    outputs : array-like of int, shape (n_samples,)
        Prediction, or label, of the same samples.
    n_units : int
        Units of the map, empty ones included.
    n_outputs : int, optional
        Number of outputs; the largest one seen plus one if None.

    Returns
    -------
    CodeTable

    Raises
    ------
    ValueError
        If the arrays are empty, not integers, of different length or out of range.

    Examples
    --------
    >>> table = code_table([0, 0, 0, 2], [1, 1, 0, 0], n_units=3)
    >>> table.majority, table.n_samples
    (array([ 1, -1,  0]), array([3, 0, 1]))
    >>> table.predict([0, 1, 2])        # unit 1 was empty: the majority of all, here the lower of two equals
    array([1, 0, 0])
    """
    counts = contingency(units, outputs, n_units=n_units, n_outputs=n_outputs)
    n_samples = counts.sum(1)
    empty = n_samples == 0
    totals = np.where(empty, np.nan, n_samples)  # dividing by it leaves NaN where nothing is known
    probabilities = counts / totals[:, None]
    entropy = -xlogy(probabilities, probabilities).sum(1) / np.log(2) + 0.0  # + 0.0 turns -0.0 into 0.0
    return CodeTable(
        counts=counts,
        probabilities=probabilities,
        n_samples=n_samples,
        entropy=entropy,
        majority=np.where(empty, -1, counts.argmax(1)),
        purity=counts.max(1) / totals,
        overall_entropy=float(np.nansum(entropy * n_samples) / n_samples.sum()),
        overall_majority=int(counts.sum(0).argmax()),
        overall_purity=float(counts.max(1).sum() / n_samples.sum()),
    )


@dataclass(frozen=True)
class CodeAccuracy:
    """How often the unit alone tells the output, on images that the table has not seen.

    Attributes
    ----------
    accuracy : float
        Share of samples whose output the table predicts.
    interval : tuple of float
        Wilson interval of that share; table and map are held fixed.
    null : ndarray of float64, shape (n_permutations,)
        Accuracy of tables fitted to permuted outputs, on the same held-out samples.
    p_value : float
        (1 + permutations at least as accurate) / (1 + permutations).
    baseline : float
        Accuracy of always answering with the most frequent output of the table.
    unseen : float
        Share of samples whose unit was empty in the table.
    n_samples : int
    confidence : float
    """

    accuracy: float
    interval: tuple[float, float]
    null: np.ndarray = field(repr=False)
    p_value: float
    baseline: float
    unseen: float
    n_samples: int
    confidence: float


def code_accuracy(
    table: CodeTable,
    units,
    outputs,
    *,
    n_permutations: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> CodeAccuracy:
    """Judge a code table on held-out samples, beside tables fitted to shuffled outputs.

    Parameters
    ----------
    table : CodeTable
        Made from other images.
    units, outputs : array-like of int, shape (n_samples,)
        Held-out samples.
    n_permutations : int
        Tables with the outputs of their own samples permuted, which breaks the tie of unit and output and keeps how
        often each occurs.
    confidence : float
        Coverage of the Wilson interval (Wilson 1927).
    random_state : int

    Returns
    -------
    CodeAccuracy

    Raises
    ------
    ValueError
        If the arrays do not fit each other or the table.

    Examples
    --------
    >>> import numpy as np
    >>> outputs = np.arange(400) % 10
    >>> table = code_table(outputs[:200], outputs[:200], n_units=12)
    >>> judged = code_accuracy(table, outputs[200:], outputs[200:], n_permutations=99)
    >>> judged.accuracy, judged.baseline, judged.p_value
    (1.0, 0.1, 0.01)
    """
    n_units, n_outputs = table.counts.shape
    held_out = contingency(units, outputs, n_units=n_units, n_outputs=n_outputs)
    n_permutations = check_count(n_permutations, "n_permutations")
    confidence = check_confidence(confidence)
    rng = np.random.default_rng(random_state)
    n = int(held_out.sum())
    seen = table.n_samples > 0
    answers = np.where(seen, table.majority, table.overall_majority)
    accuracy = float(held_out[np.arange(n_units), answers].sum() / n)

    first_cell = np.repeat(np.arange(n_units), table.n_samples) * n_outputs
    fitted_outputs = np.repeat(np.tile(np.arange(n_outputs), n_units), table.counts.ravel())
    null = np.empty(n_permutations)
    for i in range(n_permutations):
        shuffled = np.bincount(first_cell + rng.permutation(fitted_outputs), minlength=table.counts.size)
        answers = np.where(seen, shuffled.reshape(table.counts.shape).argmax(1), table.overall_majority)
        null[i] = held_out[np.arange(n_units), answers].sum() / n
    return CodeAccuracy(
        accuracy=accuracy,
        interval=wilson_interval(round(accuracy * n), n, confidence=confidence),
        null=null,
        p_value=permutation_p_value(accuracy, null),
        baseline=float(held_out[:, table.overall_majority].sum() / n),
        unseen=float(held_out[~seen].sum() / n),
        n_samples=n,
        confidence=confidence,
    )
