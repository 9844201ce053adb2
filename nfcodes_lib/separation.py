"""How classes lie in a layer: their spread against their distance, the frame of their means, their neighbours.

With S_W the covariance within classes and S_B that of the class means, each class weighted by its share,

    D = tr(S_W pinv(S_B))

is the separation fuzziness of He and Su (arXiv:2210.17020). Divided by the number of classes it is NC1, the first
measure of neural collapse (Papyan, Han and Donoho 2020, PNAS 117): one measure with two names. As training goes on, D
falls, and the class means approach the corners of a simplex: equal lengths, and equal angles of cosine -1 / (C - 1).
He and Su find that D falls by the same factor from layer to layer (:func:`separation_law`).

Who is next to whom needs no covariance: :func:`neighbor_table` counts the classes of nearest neighbours, for classes
and for any grouping of them into super-classes (after Doimo et al. 2020, arXiv:2007.03506).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ._indices import check_count, check_indices
from .controls import check_activations
from .statistics import permutation_p_value


@dataclass(frozen=True)
class ClassGeometry:
    """How the classes lie in a layer.

    Attributes
    ----------
    fuzziness : float
        D = tr(S_W pinv(S_B)): small where classes are tight and far apart in every direction of their means.
    nc1 : float
        D / n_classes.
    variance_ratio : float
        tr(S_W) / tr(S_B): the same question, asked of all directions together.
    equinorm : float
        Standard deviation of the lengths of the class means about their centre, over their mean: 0 in a simplex.
    equiangle : float
        Standard deviation of the cosines between class means about their centre: 0 in a simplex.
    simplex_gap : float
        Mean distance of those cosines from -1 / (n_classes - 1).
    cosine_within, cosine_between : float
        Mean cosine distance, raw, of pairs of samples of one class, and of two classes.
    mean_cosines : ndarray of float64, shape (n_classes, n_classes)
        Cosines between class means about their centre.
    """

    fuzziness: float
    nc1: float
    variance_ratio: float
    equinorm: float
    equiangle: float
    simplex_gap: float
    cosine_within: float
    cosine_between: float
    mean_cosines: np.ndarray = field(repr=False)


def class_geometry(codes, labels) -> ClassGeometry:
    """Measure how classes lie in a layer.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)
    labels : array-like of int, shape (n_samples,)
        Two classes or more, each with two samples or more.

    Returns
    -------
    ClassGeometry

    Raises
    ------
    ValueError
        If codes and labels do not fit each other, a class has a single sample, or all class means coincide.

    Notes
    -----
    Class means of few samples are noisy, and noise spreads them: with n samples a class, S_B gains about S_W / n. In
    directions in which the classes hardly differ, that noise is most of S_B; compare at equal numbers of samples. D
    takes the classes' weakest direction as seriously as their strongest, `variance_ratio` does not.

    Examples
    --------
    >>> codes = np.array([[0.9, 0.0], [1.1, 0.0], [-0.9, 0.0], [-1.1, 0.0]])
    >>> found = class_geometry(codes, [0, 0, 1, 1])
    >>> round(found.fuzziness, 4), round(found.variance_ratio, 4), found.simplex_gap
    (0.01, 0.01, 0.0)
    """
    x, labels = check_activations(codes).astype(np.float64), check_indices(labels, "labels")
    if len(x) != len(labels):
        raise ValueError(
            f"codes and labels must describe the same samples, got {len(x)} and {len(labels)}; "
            "select both with the same index"
        )
    classes, of_sample, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or sizes.min() < 2:
        raise ValueError(
            f"expected two classes or more of two samples or more, got {len(classes)} classes of at least "
            f"{sizes.min()}; pass more samples"
        )
    member = np.zeros((len(classes), len(x)))
    member[of_sample, np.arange(len(x))] = 1
    centred = x - x.mean(0)
    means = member @ centred / sizes[:, None]
    rest = centred - means[of_sample]
    within, between = rest.T @ rest / len(x), (means.T * sizes) @ means / len(x)
    scale = max(np.trace(within), np.trace(between))
    if np.trace(between) <= 1e-12 * scale:
        raise ValueError("expected classes whose means differ, got the same mean for all; there is nothing to separate")

    frame = means - means.mean(0)
    lengths = np.linalg.norm(frame, axis=1)
    cosines = frame @ frame.T / np.outer(lengths, lengths)
    pairs = cosines[np.triu_indices(len(classes), 1)]
    cosine_within, cosine_between = _pair_distances(x, member, sizes)
    fuzziness = float(np.sum(within * np.linalg.pinv(between, rcond=1e-10, hermitian=True)))
    return ClassGeometry(
        fuzziness=fuzziness,
        nc1=fuzziness / len(classes),
        variance_ratio=float(np.trace(within) / np.trace(between)),
        equinorm=float(lengths.std() / lengths.mean()),
        equiangle=float(pairs.std()),
        simplex_gap=float(np.abs(pairs + 1 / (len(classes) - 1)).mean()),
        cosine_within=cosine_within,
        cosine_between=cosine_between,
        mean_cosines=cosines,
    )


@dataclass(frozen=True)
class SeparationLaw:
    """A straight line through log D over depth.

    Attributes
    ----------
    factor : float
        By which D is multiplied from one layer to the next: below 1 if classes separate.
    start : float
        The line's D at the first layer.
    r_squared : float
        Share of the variance of log D that the line explains; 1 for an exact geometric law.
    fitted : ndarray of float64, shape (n_layers,)
        The line's D at each layer.
    steps : ndarray of float64, shape (n_layers - 1,)
        D of each layer over that of the layer before: all alike if the law holds.
    """

    factor: float
    start: float
    r_squared: float
    fitted: np.ndarray
    steps: np.ndarray


def separation_law(fuzziness) -> SeparationLaw:
    """Fit D_l = D_0 factor^l to the fuzziness of successive layers (He and Su, arXiv:2210.17020).

    Parameters
    ----------
    fuzziness : array-like of float, shape (n_layers,)
        D from shallow to deep, positive; three layers or more.

    Returns
    -------
    SeparationLaw

    Raises
    ------
    ValueError
        If there are fewer than three values, or one is not positive and finite.

    Notes
    -----
    Least squares of log D on 0, 1, 2, … Whatever falls steadily has a high r_squared over a handful of layers; look at
    `steps` too, and at the untrained network.

    Examples
    --------
    >>> law = separation_law([100.0, 50.0, 25.0, 12.5])
    >>> round(law.factor, 3), round(law.r_squared, 3), law.steps.round(3)
    (0.5, 1.0, array([0.5, 0.5, 0.5]))
    """
    d = np.asarray(fuzziness, dtype=np.float64)
    if d.ndim != 1 or len(d) < 3:
        raise ValueError(f"fuzziness must hold three layers or more in one row, got shape {d.shape}")
    if not (np.isfinite(d) & (d > 0)).all():
        raise ValueError(f"fuzziness must be positive and finite, got {d.tolist()}")
    depth, logs = np.arange(len(d)), np.log(d)
    slope, intercept = np.polyfit(depth, logs, 1)
    fitted = intercept + slope * depth
    total = ((logs - logs.mean()) ** 2).sum()
    return SeparationLaw(
        factor=float(np.exp(slope)),
        start=float(np.exp(intercept)),
        r_squared=float(1 - ((logs - fitted) ** 2).sum() / total) if total > 0 else 1.0,
        fitted=np.exp(fitted),
        steps=d[1:] / d[:-1],
    )


@dataclass(frozen=True)
class NeighborTable:
    """Whom the classes have as neighbours.

    Attributes
    ----------
    counts : ndarray of int64, shape (n_classes, n_classes)
        Row: class of a sample; column: class of a neighbour.
    sizes : ndarray of int64, shape (n_classes,)
        Samples of each class.
    n_neighbors : int
    """

    counts: np.ndarray
    sizes: np.ndarray
    n_neighbors: int

    def overlap(self, groups=None) -> float:
        """Share of neighbours of the sample's own group, adjusted for chance: 0 by chance, 1 if all are.

        Parameters
        ----------
        groups : array-like of int, shape (n_classes,), optional
            Group (super-class) of each class; every class for itself if None.

        Returns
        -------
        float

        Notes
        -----
        (share - chance) / (1 - chance), with chance the share that neighbours drawn blindly would have. If all classes
        are of one size and the neighbours of another class are of any other class alike, this is the same for every
        grouping: what a grouping has above that tells which classes lie together.
        """
        groups = self._check(groups)
        same = groups[:, None] == groups
        n = self.sizes.sum()
        share = self.counts[same].sum() / (n * self.n_neighbors)
        of_group = same @ self.sizes  # samples in each class's group
        chance = float((self.sizes * (of_group - 1)).sum() / (n * (n - 1)))
        if chance >= 1:
            raise ValueError("expected two groups or more, got one that holds every class; nothing is left to tell")
        return float((share - chance) / (1 - chance))

    def grouping_test(self, groups, *, n_permutations: int = 999, random_state: int = 0) -> tuple[np.ndarray, float]:
        """Overlap of random groupings with groups of the same sizes, and the share of those that reach `groups`.

        Parameters
        ----------
        groups : array-like of int, shape (n_classes,)
        n_permutations : int
        random_state : int

        Returns
        -------
        null : ndarray of float64, shape (n_permutations,)
        p_value : float
            (1 + groupings with at least this overlap) / (1 + groupings).
        """
        groups, rng = self._check(groups), np.random.default_rng(random_state)
        n_permutations = check_count(n_permutations, "n_permutations")
        null = np.array([self.overlap(rng.permutation(groups)) for _ in range(n_permutations)])
        return null, permutation_p_value(self.overlap(groups), null)

    def _check(self, groups) -> np.ndarray:
        groups = check_indices(np.arange(len(self.sizes)) if groups is None else groups, "groups")
        if len(groups) != len(self.sizes):
            raise ValueError(f"groups must name a group for each of {len(self.sizes)} classes, got {len(groups)}")
        return groups


def neighbor_table(codes, labels, *, n_neighbors: int = 30) -> NeighborTable:
    """Count the classes of the nearest neighbours of each sample.

    Parameters
    ----------
    codes : array-like of float, shape (n_samples, n_features)
        Time grows with the square of n_samples.
    labels : array-like of int, shape (n_samples,)
        From 0, every class with a sample.
    n_neighbors : int
        Fewer than samples; 30 as in Doimo et al.

    Returns
    -------
    NeighborTable

    Raises
    ------
    ValueError
        If codes and labels do not fit each other, or there are too few samples.

    Examples
    --------
    >>> table = neighbor_table([[0.0], [0.1], [5.0], [5.2]], [0, 0, 1, 1], n_neighbors=1)
    >>> table.counts, table.overlap()
    (array([[2, 0],
           [0, 2]]), 1.0)
    """
    from sklearn.neighbors import NearestNeighbors

    x, labels = check_activations(codes), check_indices(labels, "labels")
    if len(x) != len(labels):
        raise ValueError(f"codes and labels must describe the same samples, got {len(x)} and {len(labels)}")
    n_neighbors = check_count(n_neighbors, "n_neighbors")
    if n_neighbors >= len(x):
        raise ValueError(f"n_neighbors must be below the number of samples, {len(x)}, got {n_neighbors}")
    nearest = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(x).kneighbors(return_distance=False)
    n_classes = int(labels.max()) + 1
    cells = (labels[:, None] * n_classes + labels[nearest]).ravel()
    counts = np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)
    return NeighborTable(counts=counts, sizes=np.bincount(labels), n_neighbors=n_neighbors)


def _pair_distances(x: np.ndarray, member: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Mean cosine distance of pairs within a class and of pairs of two classes."""
    sums = member @ directions(x)
    inside = (sums**2).sum()
    within = (inside - len(x)) / (sizes @ (sizes - 1))
    between = ((sums.sum(0) ** 2).sum() - inside) / (len(x) ** 2 - sizes @ sizes)
    return float(1 - within), float(1 - between)


def directions(x: np.ndarray) -> np.ndarray:
    """Each row at unit length."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(
            f"expected vectors with a direction, got {np.count_nonzero(lengths == 0)} of length zero; leave them out"
        )
    return x / lengths
