"""What :class:`nfcodes_lib.diagnose.Diagnosis` says about each image: scores, by name and as columns for a detector."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import pairwise_distances_argmin_min

from ._names import did_you_mean

CODE_SCORES = ("code confidence", "quantization error", "disagreement", "path")
BASELINES = ("max-softmax", "Mahalanobis", "deep kNN")
SCORES = BASELINES[:1] + CODE_SCORES + BASELINES[1:]
SCALES = {
    "max-softmax": "log-odds against the answer",
    "code confidence": "−log₂ of it, mean over layers (bits)",
    "quantization error": "log of its ratio to the usual",
    "disagreement": "divergence of layers (bits)",
    "path": "surprise (bits a step)",
    "Mahalanobis": "log of squared distance",
    "deep kNN": "share of foreign neighbours",
}  # what Scores.suspicion is measured in


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of n images in L layers; :class:`nfcodes_lib.diagnose.Diagnosis` defines each.

    Attributes
    ----------
    layers : tuple of str
    answers : ndarray of int64, shape (n,)
        The answers that are judged.
    units : ndarray of int64, shape (L, n)
        BMUs.
    code_confidence : ndarray of float64, shape (L, n)
        In (0, 1); high is good. All that follow are low when nothing is wrong.
    quantization_error : ndarray of float64, shape (L, n)
        1 where a code lies as far from its unit as is usual there.
    disagreement : ndarray of float64, shape (n,)
        In bits, from 0 to log2 L.
    path_surprise : ndarray of float64, shape (n,)
        In bits per step.
    mahalanobis : ndarray of float64, shape (L, n)
        Squared distance.
    neighbor_disagreement : ndarray of float64, shape (L, n)
        Share of neighbours of another class than the answer.
    softmax_log_odds : ndarray of float64, shape (n,), or None
        log((1 - p) / p) of the softmax p of the answer.
    """

    layers: tuple[str, ...]
    answers: np.ndarray = field(repr=False)
    units: np.ndarray = field(repr=False)
    code_confidence: np.ndarray = field(repr=False)
    quantization_error: np.ndarray = field(repr=False)
    disagreement: np.ndarray = field(repr=False)
    path_surprise: np.ndarray = field(repr=False)
    mahalanobis: np.ndarray = field(repr=False)
    neighbor_disagreement: np.ndarray = field(repr=False)
    softmax_log_odds: np.ndarray | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def max_softmax(self) -> np.ndarray:
        """Softmax of the answer, shape (n,)."""
        return 1 / (1 + np.exp(self._columns("max-softmax")[0]))

    def suspicion(self, name: str, *, layer: str | None = None) -> np.ndarray:
        """One number per image, the higher the more suspicious.

        Parameters
        ----------
        name : str
            One of ``SCORES``.
        layer : str, optional
            Ask this layer alone; None takes the mean over the layers. Scores that have no layers take None.

        Returns
        -------
        ndarray of float64, shape (n,)
            Code confidence as mean of -log2 P, quantization error and Mahalanobis as mean of logarithms, the softmax
            as log-odds; the others as they are.

        Raises
        ------
        ValueError
            If there is no such score or layer.
        """
        columns = self._columns(name)
        if layer is None:
            return columns.mean(0)
        if len(columns) != len(self.layers) or name in ("max-softmax", "disagreement", "path"):
            raise ValueError(f"layer must be None for {name!r}, which is one score for all layers, got {layer!r}")
        if layer not in self.layers:
            hint = did_you_mean(layer, self.layers)
            raise ValueError(f"layer must be one of {list(self.layers)}, got {layer!r}{hint}")
        return columns[self.layers.index(layer)]

    def suspicions(self, names=SCORES) -> dict[str, np.ndarray]:
        """Name -> :meth:`suspicion`, for several scores."""
        return {name: self.suspicion(name) for name in names}

    def features(self, names=SCORES) -> np.ndarray:
        """Columns for a detector: every layer of every score of `names`, shape (n, n_columns)."""
        return np.concatenate([self._columns(name) for name in check_score_names(names)]).T

    def take(self, index) -> Scores:
        """The scores of some images: an index array, a mask or a slice."""
        values = {name: value[..., index] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return Scores(**(vars(self) | values))

    def _columns(self, name: str) -> np.ndarray:
        """Rows of one score, shape (L, n) or (1, n), on a scale on which differences mean something."""
        check_score_names([name])
        if name == "max-softmax":
            if self.softmax_log_odds is None:
                raise ValueError("expected logits for 'max-softmax', got none; pass logits to score_samples")
            return self.softmax_log_odds[None]
        tiny = np.finfo(np.float64).tiny
        return {
            "code confidence": lambda: -np.log2(self.code_confidence),
            "quantization error": lambda: np.log(np.maximum(self.quantization_error, tiny)),
            "disagreement": lambda: self.disagreement[None],
            "path": lambda: self.path_surprise[None],
            "Mahalanobis": lambda: np.log(np.maximum(self.mahalanobis, tiny)),
            "deep kNN": lambda: self.neighbor_disagreement,
        }[name]()


def join_scores(parts) -> Scores:
    """Put the scores of several sets of images one after the other.

    Parameters
    ----------
    parts : sequence of Scores
        Of the same diagnosis.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        If there are none, or they are of different layers, or only some have a softmax.
    """
    parts = list(parts)
    kinds = {(part.layers, part.softmax_log_odds is None) for part in parts}
    if len(kinds) != 1:
        raise ValueError(f"parts must be scores of the same layers, all or none with a softmax, got {sorted(kinds)}")
    names = [name for name, value in vars(parts[0]).items() if isinstance(value, np.ndarray)]
    values = {name: np.concatenate([vars(part)[name] for part in parts], axis=-1) for name in names}
    return Scores(**(vars(parts[0]) | values))


def check_score_names(names) -> list[str]:
    """Return `names` as a list after checking that it holds different names of scores."""
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in SCORES:
            raise ValueError(f"a score must be one of {list(SCORES)}, got {name!r}{did_you_mean(name, SCORES)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be one or more different scores, got {names}")
    return names


class ClassGaussians:
    """One Gaussian per class, all with the same covariance; stored in coordinates in which that is the identity."""

    def __init__(self, x: np.ndarray, labels: np.ndarray):
        classes, member = np.unique(labels, return_inverse=True)
        means = np.stack([x[member == i].mean(0, dtype=np.float64) for i in range(len(classes))])
        precision = EmpiricalCovariance(assume_centered=True).fit(x - means[member]).get_precision()
        values, vectors = np.linalg.eigh(precision)
        self.whiten = vectors * np.sqrt(np.maximum(values, 0))
        self.means = means @ self.whiten

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest class mean."""
        return pairwise_distances_argmin_min(x.astype(np.float64) @ self.whiten, self.means)[1] ** 2


def smoothed_conditional(counts, smoothing: float) -> np.ndarray:
    """P(column | row) from counts, drawn towards the columns' overall shares; no entry is 0.

    Examples
    --------
    >>> smoothed_conditional([[4, 0], [0, 0]], smoothing=1.0).round(2)
    array([[0.98, 0.02],
           [0.9 , 0.1 ]])
    """
    counts = np.asarray(counts, dtype=np.float64)
    overall = (counts.sum(0) + smoothing / counts.shape[1]) / (counts.sum() + smoothing)
    return (counts + smoothing * overall) / (counts.sum(1, keepdims=True) + smoothing)


def jensen_shannon(rows) -> np.ndarray:
    """How much distributions differ: the entropy of their mean less the mean of their entropies, in bits.

    Parameters
    ----------
    rows : array-like of float, shape (n_distributions, n_samples, n_outcomes)
        Positive, summing to 1 over the outcomes.

    Returns
    -------
    ndarray of float64, shape (n_samples,)
        From 0 where all agree to log2(n_distributions).

    Examples
    --------
    >>> jensen_shannon([[[0.999, 0.001]], [[0.001, 0.999]]]).round(1)
    array([1.])
    """
    rows = np.asarray(rows, dtype=np.float64)
    mean = rows.mean(0)
    return np.maximum((rows * np.log2(rows)).sum(2).mean(0) - (mean * np.log2(mean)).sum(1), 0)


def log_odds_against(logits, answers) -> np.ndarray:
    """log((1 - p) / p) of the softmax p of the answers, which keeps its digits where p rounds to 1; shape (n,)."""
    logits = np.asarray(logits, dtype=np.float64)
    own = np.take_along_axis(logits, np.asarray(answers)[:, None], axis=1)
    others = logits - own
    np.put_along_axis(others, np.asarray(answers)[:, None], -np.inf, axis=1)
    return np.logaddexp.reduce(others, axis=1)
