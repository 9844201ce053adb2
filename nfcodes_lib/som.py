"""The self-organizing map: a sheet of units laid over the data, so that neighbours on the sheet resemble each other.

One scikit-learn estimator, two ways to train it. ``backend="somoclu"`` is the field's reference implementation (Wittek
et al. 2017, doi:10.18637/jss.v078.i09); ``backend="torch"`` computes the same batch rule as matrix products, on any
device and on several machines (see :mod:`nfcodes_lib._som_torch` for the equations). What follows training (search,
errors, U-matrix) is common to both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from . import _som_file, grids
from ._som_data import CenteredRows, Frame, power_of_two
from ._som_distributed import Ranks
from ._som_search import Search
from ._som_settings import check_codebook, check_device, check_settings, radii
from ._som_training import Epoch, train_map
from ._som_workers import Workers

__all__ = ["SOM", "Epoch"]


class SOM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Self-organizing map, trained by the batch rule.

    Parameters
    ----------
    n_rows, n_columns : int
        Size of the map.
    backend : {"somoclu", "torch"}
        Who trains. Both give the same map up to rounding; torch is far faster.
    kernel : {"auto", "cpu", "gpu"}
        somoclu's kernel; ``"auto"`` takes the GPU where somoclu was built for it and one is there. Ignored by torch.
    n_epochs : int
        Passes over the data. 0 leaves the initial codebook and only finds the BMUs in it.
    initialization : {"pca", "random"} or ndarray of shape (n_rows, n_columns, n_features)
        A sheet in the plane of the two first principal components; random samples of the data; or a given codebook.
    map_type : {"planar", "toroid"}
        Whether the map ends at its edges or wraps around.
    grid_type : {"rectangular", "hexagonal"}
        Eight neighbours or six. somoclu's hexagonal distances are wrong, so that backend warns here.
    neighborhood : {"gaussian", "bubble"}
        h = exp(-d² / (2 (std_coeff r)²)) of the distance d on the map and the radius r; or h = 1 up to d = r.
    compact_support : bool
        Cut the Gaussian off at d = r.
    std_coeff : float
        Standard deviation of the Gaussian, as a multiple of the radius.
    radius0 : float, optional
        First radius, in steps of the grid; half of the map's shorter side if None (but not less than `radiusN`).
    radiusN : float
        Last radius.
    radius_cooling : {"linear", "exponential"}
        r_e = r0 - e (r0 - rN) / (n_epochs - 1), or r_e = r0 (rN / r0)^(e / n_epochs), which stops short of rN.
    device : str
        Where torch computes: ``"cpu"``, ``"cuda"``, ``"mps"``. With backend="somoclu", for search and errors only.
    search_dtype : {"float32", "bfloat16", "int8"}
        Precision of the search for BMUs in training, but for the last epoch, which is in float32. int8 is the
        fastest on processors that multiply such numbers at once (AVX512-VNNI: servers of Intel since 2019, AMD since
        Zen 4), from some hundred features; on others, and where rounding would lose too much, `fit` warns and uses
        float32. bfloat16 pays on GPUs. Only with backend="torch", int8 only with device="cpu".
    working_memory : float
        MiB that may be spent beyond the data and the codebook. Data whose centred copy takes more than half of it are
        read again in every epoch (a memory-mapped array: from disk). Only with backend="torch"; somoclu needs a copy.
    random_state : int, RandomState or None
        Seed of either initialization; training itself is deterministic.
    verbose : int
        1 shows a progress bar.

    Attributes
    ----------
    codebook_ : ndarray, float32, shape (n_rows, n_columns, n_features)
    bmus_ : ndarray, int64, shape (n_samples, 2)
        Row and column of each training sample's best-matching unit.
    labels_ : ndarray, int64, shape (n_samples,)
        The same as flat unit index, row * n_columns + column.
    history_ : ndarray, float64, shape (n_epochs,)
        Quantization error of the training data after each epoch.
    radii_ : ndarray, float64, shape (n_epochs,)
    center_ : ndarray, shape (n_features,)
        Mean of the training data, about which distances are computed.
    n_iter_, n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Notes
    -----
    The batch rule, with b(n) the BMU of sample n: w_k = Σ_n h(k, b(n)) x_n / Σ_n h(k, b(n)). A learning rate would
    cancel, so there is none; units that no sample reaches keep their vector. Schedule and defaults are somoclu's; the
    initialization is ours (somoclu scales its principal components by the variance, and seeds from the clock).

    With a torch process group initialised, ``fit`` with backend="torch" takes each rank's data as its share and every
    rank ends with the codebook of all the data; `bmus_` are those of the rank's own samples.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    >>> som = SOM(4, 5, backend="torch", n_epochs=5, random_state=0).fit(x)
    >>> som.codebook_.shape, som.bmus_.shape, som.predict(x[:2]).shape
    ((4, 5, 3), (500, 2), (2,))
    >>> bool(som.history_[-1] < som.history_[0])
    True
    """

    def __init__(
        self,
        n_rows=20,
        n_columns=20,
        *,
        backend="somoclu",
        kernel="auto",
        n_epochs=20,
        initialization="pca",
        map_type="planar",
        grid_type="rectangular",
        neighborhood="gaussian",
        compact_support=True,
        std_coeff=0.5,
        radius0=None,
        radiusN=1.0,
        radius_cooling="linear",
        device="cpu",
        search_dtype="float32",
        working_memory=1024,
        random_state=None,
        verbose=0,
    ):
        self.n_rows = n_rows
        self.n_columns = n_columns
        self.backend = backend
        self.kernel = kernel
        self.n_epochs = n_epochs
        self.initialization = initialization
        self.map_type = map_type
        self.grid_type = grid_type
        self.neighborhood = neighborhood
        self.compact_support = compact_support
        self.std_coeff = std_coeff
        self.radius0 = radius0
        self.radiusN = radiusN
        self.radius_cooling = radius_cooling
        self.device = device
        self.search_dtype = search_dtype
        self.working_memory = working_memory
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None, *, callback: Callable[[Epoch], None] | None = None):
        """Train the map.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite numbers. Computed in float32 about the mean; never modified.
        y : ignored
        callback : callable, optional
            Called with an :class:`Epoch` for the initial codebook and after each epoch.

        Returns
        -------
        SOM
            Itself.

        Raises
        ------
        ValueError
            If a parameter or `X` is not as described.
        ImportError
            If backend="somoclu" and somoclu is not built; the message names the remedies.
        RuntimeError
            If kernel="gpu" and somoclu's GPU kernel does not work here, or another rank of the job is lost.
        """
        check_device(self)
        ranks = Ranks(self.device if self.backend == "torch" else "cpu")
        problem = None
        try:
            check_settings(self)
            X = validate_data(self, X, dtype=[np.float64, np.float32])
            if isinstance(self.initialization, np.ndarray):
                check_codebook(self)
        except (ValueError, TypeError) as error:
            problem = error
        if self.backend == "torch":
            signature = (0, 0, 0, 0) if problem else (X.shape[1], self.n_rows, self.n_columns, self.n_epochs)
            ranks.agree(problem, signature)
        elif problem:
            raise problem
        elif ranks.active:
            warnings.warn("backend='somoclu' trains each rank's map on that rank's data alone", stacklevel=2)
            ranks = Ranks(together=False)
        n_samples, n_units = sum(ranks.counts(len(X))), self.n_rows * self.n_columns
        if n_units > n_samples:
            warnings.warn(
                f"the map has more units ({n_units:,}) than the data have samples ({n_samples:,}), so most units "
                "interpolate; a smaller map, or an emergent map on purpose",
                stacklevel=2,
            )
        self.radii_ = radii(self)
        frame, codebook, self.labels_, history = train_map(self, X, ranks, callback)
        self.center_ = frame.center
        self.codebook_ = frame.outward(codebook).reshape(self.n_rows, self.n_columns, -1)
        self.bmus_ = np.column_stack(np.divmod(self.labels_, self.n_columns))
        self.history_ = np.array(history[1:])
        self.n_iter_ = self.n_epochs
        self._n_features_out = n_units
        return self

    def predict(self, X) -> np.ndarray:
        """Best-matching unit of each sample.

        Returns
        -------
        ndarray, int64, shape (n_samples,)
            Flat unit index; of equally near units the lowest.
        """
        return self._search(X)[0][:, 0]

    def transform(self, X) -> np.ndarray:
        """Euclidean distance of each sample to every codebook vector.

        Returns
        -------
        ndarray, shape (n_samples, n_units)
            float64 for float64 input, else float32.
        """
        rows, codebook = self._rows(X)
        half_norms = (codebook * codebook).sum(dim=1) / 2
        distances = np.empty((rows.n_samples, len(codebook)), rows.x.dtype)
        step = max(1, 2**22 // (len(codebook) * rows.dtype.itemsize))
        for start, block in rows.blocks():
            for first in range(0, len(block), step):
                tile = block[first : first + step]
                squares = (
                    torch.addmm(half_norms, tile, codebook.T, alpha=-1).mul_(2).add_((tile * tile).sum(1)[:, None])
                )
                here = slice(start + first, start + first + len(tile))
                distances[here] = squares.clamp_(min=0).sqrt_().mul_(rows.frame.scale).cpu().numpy()
        return distances

    def score(self, X, y=None) -> float:
        """Minus the quantization error, so that more is better, as scikit-learn's searches want it."""
        return -self.quantization_error(X)

    def quantization_error(self, X) -> float:
        """Mean Euclidean distance of the samples to their best-matching unit, in the units of the data."""
        units, rows, codebook = self._search(X)
        total = 0.0
        for start, block in rows.blocks():
            for first in range(0, len(block), step := max(1, 2**20 // rows.n_features)):
                tile = block[first : first + step]
                index = torch.from_numpy(units[start + first : start + first + len(tile), 0]).to(rows.device)
                total += float(torch.linalg.vector_norm(tile - codebook[index], dim=1).cpu().double().sum())
        return total / rows.n_samples * rows.frame.scale

    def topographic_error(self, X) -> float:
        """Share of samples whose two best-matching units are no neighbours on the map (Kiviluoto 1996).

        Neighbours are the eight units around one on a rectangular grid, the six on a hexagonal one; on a toroid also
        across its edges. 0 for a map of one unit.
        """
        if self.n_rows * self.n_columns == 1:
            validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
            return 0.0
        units = self._search(X, n_best=2)[0]
        return float(np.mean(self.grid_distance(*units.T) ** 2 > grids.ADJACENT[self.grid_type] + 1e-9))

    def grid_distance(self, units, others) -> np.ndarray:
        """Distance on this map between flat unit indices, pair by pair, as :func:`nfcodes_lib.grids.grid_distance`."""
        return grids.grid_distance(
            units, others, self.n_rows, self.n_columns, map_type=self.map_type, grid_type=self.grid_type
        )

    def u_matrix(self) -> np.ndarray:
        """Mean distance of each codebook vector to its neighbours' (see :func:`nfcodes_lib.grids.u_matrix`).

        Returns
        -------
        ndarray, float64, shape (n_rows, n_columns)
        """
        check_is_fitted(self)
        return grids.u_matrix(self.codebook_, map_type=self.map_type, grid_type=self.grid_type)

    def save(self, path: str | Path) -> Path:
        """Write the map to one ``.npz`` file, without pickle and in one step: a half-written file is never left.

        Returns
        -------
        Path
            Where it was written; ``.npz`` is appended if `path` does not end so.
        """
        check_is_fitted(self)
        return _som_file.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> SOM:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not such a file, or is damaged; the message names the file and what is wrong with it.
        """
        return _som_file.load(cls, path)

    def _rows(self, X) -> tuple[CenteredRows, torch.Tensor]:
        """`X` and the codebook in one frame, on the device; float64 if X is, where the device can."""
        check_is_fitted(self)
        check_device(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        codebook = self.codebook_.reshape(-1, self.n_features_in_).astype(np.float64) - self.center_
        dtype = torch.float32 if X.dtype == np.float32 or str(self.device).startswith("mps") else torch.float64
        frame = Frame(self.center_.astype(X.dtype), power_of_two(float(np.abs(codebook).max())))
        memory = int(self.working_memory * 2**20)
        rows = CenteredRows(X, frame, dtype=dtype, device=self.device, memory=memory)
        return rows, torch.from_numpy(codebook / frame.scale).to(self.device, dtype)

    def _search(self, X, n_best: int = 1) -> tuple[np.ndarray, CenteredRows, torch.Tensor]:
        rows, codebook = self._rows(X)
        with Workers(rows.device) as workers:
            units = Search(rows, codebook, workers, n_best=n_best).units
        return units.cpu().numpy(), rows, codebook
