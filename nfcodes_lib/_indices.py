"""Checks of index arrays: units of a map, classes, predictions. One place, so that every message reads the same."""

from __future__ import annotations

import numpy as np


def check_indices(values, name: str, *, n_values: int | None = None, n_values_name: str = "n_values") -> np.ndarray:
    """Return `values` as a one-dimensional int64 array of indices in [0, n_values).

    Parameters
    ----------
    values : array-like of int, shape (n,)
        Array, list or CPU tensor.
    name : str
        How the caller calls it, for the message.
    n_values : int, optional
        Exclusive upper bound; None sets none.
    n_values_name : str
        How the caller calls that bound.

    Raises
    ------
    ValueError
        If `values` is empty, has another number of axes, is not of integers, or leaves the range.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        remedy = "som.predict(x) gives flat unit indices" if array.ndim == 2 else "pass one index per sample"
        raise ValueError(f"{name} must have shape (n_samples,), got {array.shape}; {remedy}")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one sample, got none; is the selection before it empty?")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got dtype {array.dtype}; convert them with .astype(int)")
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise ValueError(f"{name} must be indices from 0, got {low}; leave unassigned samples out")
    if n_values is not None and high >= n_values:
        raise ValueError(
            f"{name} must lie in [0, {n_values}), got {high}; {n_values_name} must be at least {high + 1} here"
        )
    return array.astype(np.int64, copy=False)


def check_pair(units, outputs, *, names=("units", "outputs"), n_units=None, n_outputs=None):
    """Check two index arrays that describe the same samples; return both as int64 arrays of one length."""
    units = check_indices(units, names[0], n_values=n_units, n_values_name="n_units")
    outputs = check_indices(outputs, names[1], n_values=n_outputs, n_values_name="n_outputs")
    if len(units) != len(outputs):
        raise ValueError(
            f"{names[0]} and {names[1]} must describe the same samples, got {len(units)} and {len(outputs)}; "
            "select both with the same index"
        )
    return units, outputs


def check_count(value, name: str, *, minimum: int = 1) -> int:
    """Return `value` as an int after checking that it is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return int(value)


def check_confidence(confidence: float) -> float:
    """Return `confidence` after checking that it lies strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}; 0.95 gives a 95 % interval")
    return float(confidence)
