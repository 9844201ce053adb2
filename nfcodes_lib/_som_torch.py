"""The batch rule of the SOM as matrix products, on any device of torch.

One epoch (Kohonen 2001, "Self-Organizing Maps", 3.6; somoclu computes the same, Wittek et al. 2017,
doi:10.18637/jss.v078.i09) finds the best-matching unit b(n) of every sample and then sets each codebook vector to

    w_k = sum_n h(k, b(n)) x_n / sum_n h(k, b(n)),

where h falls off with the distance on the map. Samples with the same BMU have the same weights, so the sums over
samples shrink to sums per unit, s_b and c_b: w_k = sum_b h(k, b) s_b / sum_b h(k, b) c_b. What is left is one product
of data and codebook for the search, and one of the neighbourhood matrix and the sums for the update.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.fft import next_fast_len

from . import grids
from ._som_data import CenteredRows
from ._som_distributed import Ranks

TILE_BYTES = 3 * 2**20  # distances computed at a time: they should still be in the cache when the minimum is sought
BLOCK_BYTES = 16 * 2**20  # of the neighbourhood matrix, or of transforms, at a time
LARGE_MAP = 4096  # units from which a Fourier transform beats the neighbourhood matrix
FULL_PRECISION_EPOCHS = 2  # at the end of training, when the search runs at lower precision


def train(
    rows: CenteredRows,
    codebook: np.ndarray,
    radii: list[float],
    neighborhood: Neighborhood,
    *,
    search_dtype: torch.dtype,
    ranks: Ranks,
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Train a map; yield its state before the first epoch and after each.

    Parameters
    ----------
    rows : CenteredRows
        float32.
    codebook : ndarray, float32, shape (n_units, n_features)
        To start from, in the frame of `rows`; not modified.
    radii : list of float
        One per epoch.
    neighborhood : Neighborhood
    search_dtype : torch.dtype
        In which the BMUs are searched, but for the last epochs and the final search.
    ranks : Ranks

    Yields
    ------
    codebook : ndarray, float32, shape (n_units, n_features)
    bmus : ndarray, int64, shape (n_samples,)
        Best-matching unit of each sample of this rank in that codebook.
    quantization_error : float
        Mean distance to the BMU over all ranks, in the frame of `rows`.
    """
    codebook = torch.from_numpy(codebook).to(rows.device)
    for epoch, radius in enumerate(radii):
        low = epoch < len(radii) - FULL_PRECISION_EPOCHS
        units, distances, sums, counts = search(rows, codebook, dtype=search_dtype if low else rows.dtype, sums=True)
        yield _state(codebook, units, distances, ranks)
        codebook = neighborhood.update(codebook, ranks.sum(sums), ranks.sum(counts), radius)
    units, distances, _, _ = search(rows, codebook)
    yield _state(codebook, units, distances, ranks)


def _state(codebook, units, distances, ranks):
    total = torch.tensor([distances.sum(), len(distances)], dtype=torch.float64, device=ranks.device)
    total = ranks.sum(total).tolist()
    return codebook.cpu().numpy(), units[:, 0], total[0] / total[1]


def search(
    rows: CenteredRows,
    codebook: torch.Tensor,
    *,
    n_best: int = 1,
    dtype: torch.dtype | None = None,
    sums: bool = False,
) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    """Find the best-matching units, and in the same pass add the samples up per unit.

    Parameters
    ----------
    rows : CenteredRows
    codebook : torch.Tensor, shape (n_units, n_features)
        On the device and in the dtype of `rows`.
    n_best : {1, 2}
    dtype : torch.dtype, optional
        Of the products of data and codebook; that of `rows` if None.
    sums : bool

    Returns
    -------
    units : ndarray, int64, shape (n_samples, n_best)
        Nearest first; of equally near units the one with the lowest index.
    distances : ndarray, shape (n_samples,)
        To the best-matching unit, from the expanded square: within about 3e-4 of the length of the sample.
    sums : torch.Tensor, shape (n_units, n_features)
    counts : torch.Tensor, shape (n_units,)
        Sum and number of the samples of each unit; zeros if not asked for.
    """
    dtype = dtype or rows.dtype
    n_units = len(codebook)
    units = np.empty((rows.n_samples, n_best), np.int64)
    distances = np.empty(rows.n_samples, str(rows.dtype).removeprefix("torch."))
    unit_sums = torch.zeros_like(codebook) if sums else None
    unit_counts = codebook.new_zeros(n_units) if sums else None
    half_norms = (codebook * codebook).sum(dim=1).mul_(0.5).to(dtype)
    transposed = codebook.to(dtype).T
    tile_rows = max(256, TILE_BYTES // (n_units * dtype.itemsize))
    buffer = torch.empty(min(tile_rows, rows.block_rows), n_units, dtype=dtype, device=rows.device)
    for start, block in rows.blocks():
        for first in range(0, len(block), tile_rows):
            tile = block[first : first + tile_rows]
            scores = torch.addmm(half_norms, tile.to(dtype), transposed, alpha=-1, out=buffer[: len(tile)])
            here = slice(start + first, start + first + len(tile))
            best = lowest(scores, units[here])
            squares = (tile * tile).sum(dim=1).cpu().numpy() + 2 * best
            distances[here] = np.sqrt(np.maximum(squares, 0))
        if sums:
            index = torch.from_numpy(units[start : start + len(block), 0]).to(rows.device)
            add_up(unit_sums, block, index)
            unit_counts += torch.bincount(index, minlength=n_units)
    return units, distances, unit_sums, unit_counts


def lowest(scores: torch.Tensor, units: np.ndarray) -> np.ndarray:
    """Write the index of the smallest score of each row into `units` (and of the next smallest, if it has two columns).

    `scores` is overwritten. Returns the smallest scores, as ndarray. On a CPU the search is numpy's, which is several
    times faster than torch's.
    """
    if scores.device.type != "cpu" or scores.dtype == torch.bfloat16:
        values, index = scores.min(dim=1)
        units[:, 0] = index.cpu().numpy()
        if units.shape[1] == 2:
            units[:, 1] = scores.scatter_(1, index[:, None], float("inf")).argmin(dim=1).cpu().numpy()
        return values.float().cpu().numpy()
    scores, each = scores.numpy(), np.arange(len(scores))
    units[:, 0] = scores.argmin(axis=1)
    values = scores[each, units[:, 0]]
    if units.shape[1] == 2:
        scores[each, units[:, 0]] = np.inf
        units[:, 1] = scores.argmin(axis=1)
    return values


def add_up(totals: torch.Tensor, samples: torch.Tensor, index: torch.Tensor) -> None:
    """Add each sample to the row of `totals` that `index` names."""
    if totals.device.type != "cpu":
        totals.index_add_(0, index, samples)
        return
    order = torch.argsort(index, stable=True)
    counts = torch.bincount(index, minlength=len(totals))
    totals += torch.nn.functional.embedding_bag(order, samples, counts.cumsum(0) - counts, mode="sum")


class Neighborhood:
    """The weights h(k, b) of a map, applied to sums per unit.

    Parameters
    ----------
    shape : tuple of int
        (n_rows, n_columns).
    map_type, grid_type : str
        As in :func:`grids.offset_table`.
    function : {"gaussian", "bubble"}
        exp(-d^2 / (2 (std_coeff r)^2)) of the distance d on the map and the radius r, or 1.
    compact_support : bool
        No weight beyond d = r; a bubble never has any.
    std_coeff : float
    device : str or torch.device
    """

    def __init__(self, shape, *, map_type, grid_type, function, compact_support, std_coeff, device):
        table = grids.offset_table(*shape, map_type=map_type, grid_type=grid_type)
        self.shape, self.planar = shape, map_type == "planar"
        self.gaussian, self.std_coeff = function == "gaussian", std_coeff
        self.cut = compact_support or not self.gaussian
        self.separable = self.gaussian and not self.cut and grid_type == "rectangular"
        self.smallest = np.exp(-0.5 / std_coeff**2) if self.gaussian else 1.0  # weight at d = r, if cut there
        self.row_step = np.sqrt(grids.ROW_STEP_SQUARED[grid_type])
        self.squares = torch.from_numpy(table.astype(np.float32)).to(device)

    def weights(self, radius: float) -> torch.Tensor:
        """h for every difference of position: float32, laid out as :func:`grids.offset_table`."""
        radius = float(np.float32(radius))  # as somoclu compares it
        weights = torch.exp(self.squares / (-2 * (self.std_coeff * radius) ** 2)) if self.gaussian else None
        if self.cut:
            inside = (self.squares.sqrt() <= radius).float()
            weights = inside if weights is None else weights * inside
        return weights

    def update(self, codebook, sums, counts, radius: float) -> torch.Tensor:
        """The codebook after one epoch; units without any weight keep their vector.

        Parameters
        ----------
        codebook, sums : torch.Tensor, shape (n_units, n_features)
        counts : torch.Tensor, shape (n_units,)
        radius : float
        """
        weights = self.weights(radius)
        if self.separable:
            smooth = self._by_axes
        elif len(counts) >= LARGE_MAP and self.cut and self.smallest > 1e-6 and counts.device.type != "mps":
            smooth = self._by_transform
        else:
            smooth = self._by_matrix
        total = smooth(weights, counts[:, None], radius)
        # Below the smallest normal number the quotient would have no digits; in a transform, zero is 1e-16 or so.
        least = self.smallest / 2 if smooth == self._by_transform else torch.finfo(torch.float32).tiny
        return torch.where(total > least, smooth(weights, sums, radius) / total, codebook)

    def _by_axes(self, weights: torch.Tensor, values: torch.Tensor, radius: float) -> torch.Tensor:
        """A Gaussian of d^2 = di^2 + dj^2 is a product: smooth along the columns of the map, then along its rows."""
        (n_rows, n_columns), n_features = self.shape, values.shape[1]
        down = weights[0, :, n_columns - 1].unfold(0, n_rows, 1)  # entry (n_rows - 1 - i, i') is h(i' - i)
        along = weights[0, n_rows - 1].unfold(0, n_columns, 1)
        smooth = down.flip(0) @ values.reshape(n_rows, -1)
        smooth = torch.matmul(along.flip(0), smooth.reshape(n_rows, n_columns, n_features))
        return smooth.reshape(-1, n_features)

    def _by_matrix(self, weights: torch.Tensor, values: torch.Tensor, radius: float) -> torch.Tensor:
        """The product with the neighbourhood matrix, a few rows of the map at a time.

        Row i of the map, read backwards, finds its weights in the table at increasing places, so that a strided view
        is the matrix; hence the flips.
        """
        (n_rows, n_columns), n_features = self.shape, values.shape[1]
        values = values.reshape(n_rows, n_columns, n_features)
        smooth = torch.empty_like(values)
        reach = int(np.ceil(radius / self.row_step)) if self.cut and self.planar else n_rows
        step = max(1, min(n_rows, BLOCK_BYTES // (4 * n_columns * n_rows * n_columns)))
        tables, row = len(weights), weights.stride(1)
        for parity, table in enumerate(weights):
            lines = range(parity, n_rows, tables)
            for chosen in (lines[k : k + step] for k in range(0, len(lines), step)):
                low, high = max(0, chosen[0] - reach), min(n_rows, chosen[-1] + reach + 1)
                matrix = table.as_strided(
                    (len(chosen), n_columns, high - low, n_columns),
                    (tables * row, 1, row, 1),
                    table.storage_offset() + (n_rows - 1 - chosen[-1] + low) * row,
                ).reshape(len(chosen) * n_columns, -1)
                part = matrix @ values[low:high].reshape(-1, n_features)
                smooth[chosen.start : chosen.stop : tables] = part.reshape(-1, n_columns, n_features).flip(0, 1)
        return smooth.reshape(-1, n_features)

    def _by_transform(self, weights: torch.Tensor, values: torch.Tensor, radius: float) -> torch.Tensor:
        """The same sums as a convolution over the map, by Fourier transforms in float64, a few features at a time."""
        (n_rows, n_columns), n_features = self.shape, values.shape[1]
        size = tuple(next_fast_len(2 * n - 1, real=True) for n in self.shape)
        padded = weights.new_zeros((len(weights), *size), dtype=torch.float64)
        padded[:, : weights.shape[1], : weights.shape[2]] = weights.flip(1, 2)
        kernels = torch.fft.rfft2(padded.roll((1 - n_rows, 1 - n_columns), (1, 2)))
        smooth = torch.empty(n_rows, n_columns, n_features, dtype=torch.float64, device=values.device)
        values = values.reshape(n_rows, n_columns, n_features)
        for first in range(0, n_features, step := max(1, BLOCK_BYTES // (16 * size[0] * size[1]))):
            block = values[:, :, first : first + step].permute(2, 0, 1).double()
            transformed = torch.fft.rfft2(block, s=size)
            for parity, kernel in enumerate(kernels):
                full = torch.fft.irfft2(transformed * kernel, s=size)[:, parity : n_rows : len(kernels), :n_columns]
                smooth[parity :: len(kernels), :, first : first + step] = full.permute(1, 2, 0)
        return smooth.reshape(-1, n_features).to(weights.dtype)
