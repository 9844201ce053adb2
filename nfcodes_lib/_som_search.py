"""The search for best-matching units: scores of all samples and units as matrix products, and the lowest of each.

The score of unit k for a sample x is |w_k|^2 / 2 - x.w_k = (|x - w_k|^2 - |x|^2) / 2, so the lowest wins. Four ways to
compute it are classes of one shape: in float32 or float64 by torch or by numpy, in bfloat16, and in whole numbers of
8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ._som_data import INT8_STEPS, CenteredRows, rounded
from ._som_distributed import Ranks
from ._som_workers import Workers

GPU_TILE_BYTES = 2**28  # of scores at a time, to keep the device busy
EXTRA_COLUMNS = 8  # beside the data in a search in bfloat16
INT8_FEATURES = 2**16  # products of more features than that could overflow 32 bits


class Search:
    """The best-matching units of all rows, found when it is made.

    Parameters
    ----------
    rows : CenteredRows
    codebook : torch.Tensor, shape (n_units, n_features)
        On the device and in the dtype of `rows`.
    workers : Workers
    n_best : {1, 2}
    low : {None, torch.bfloat16, torch.int8}
        Lower precision to search in. 8 bits only on a CPU, and not where the codebook lies far outside of the data.
    guess : torch.Tensor, shape (n_samples,), optional
        About what the lowest scores will be, for a search in bfloat16.

    Attributes
    ----------
    units : torch.Tensor, int64, shape (n_samples, n_best)
        Nearest first; of equally near units the one with the lowest index.
    scores : torch.Tensor, shape (n_samples,)
        The lowest.
    """

    def __init__(self, rows, codebook, workers, *, n_best=1, low=None, guess=None):
        self.rows = rows
        self.units = torch.empty(rows.n_samples, n_best, dtype=torch.int64, device=rows.device)
        self.scores = torch.empty(rows.n_samples, dtype=rows.dtype, device=rows.device)
        if low is torch.bfloat16:
            self._product = BFloat16Product(rows, codebook, workers, guess)
        elif low is torch.int8 and fits_int8(rows, codebook):
            self._product = Int8Product(rows, codebook, workers)
        else:
            self._product = (NumpyProduct if rows.has_ones else TorchProduct)(rows, codebook, workers)
        self._tile = tile_rows(len(codebook), rows.n_features, rows.dtype.itemsize, rows.device.type)
        found = self.units, self.scores, torch.arange(min(self._tile, rows.n_samples), device=rows.device)
        if rows.device.type == "cpu":  # numpy's search for the lowest is several times faster than torch's
            found = [tensor.numpy() for tensor in found]
        self._found = found
        for start, block in self._product.blocks():
            share = workers.share(len(block), self._tile)
            workers.run(self._search, [(start + k, block[k : k + share]) for k in range(0, len(block), share)])
        self.scores = self._product.in_full(self.scores)

    def _search(self, piece) -> None:
        """Find the units of some rows, a tile at a time; the tiles are about equally long."""
        (start, rows), (units, lowest, places) = piece, self._found
        step = max(1, -(-len(rows) // -(-len(rows) // self._tile)))
        for first in range(0, len(rows), step):
            tile = rows[first : first + step]
            here = slice(start + first, start + first + len(tile))
            take_lowest(self._product.scores(tile, here), units[here], lowest[here], places)

    def mean_distance(self, ranks: Ranks) -> float:
        """Mean distance to the BMU over all ranks.

        From the expanded square, so a distance below 3e-4 of the length of the sample is not told from zero.
        """
        distances = (self.rows.squares() + 2 * self.scores).clamp_(min=0).sqrt_()
        total = torch.tensor([float(distances.cpu().sum(dtype=torch.float64)), len(distances)], dtype=torch.float64)
        total = ranks.sum(total.to(ranks.device)).tolist()
        return total[0] / total[1]


class TorchProduct:
    """Scores in the precision of the data, on any device."""

    def __init__(self, rows: CenteredRows, codebook: torch.Tensor, workers: Workers):
        self._rows, self._workers, self._codebook = rows, workers, codebook
        self._half_norms = half_squares(codebook)

    def blocks(self) -> Iterator:
        """(index of the first row, rows), as :meth:`scores` takes them in tiles."""
        return self._rows.blocks()

    def scores(self, tile, here: slice):
        """Scores of the rows `tile`, which are the samples `here`: (n_rows, n_units), to be overwritten by the next."""
        buffer = self._workers.buffer(len(tile), len(self._codebook), tile.dtype, tile.device)
        return torch.addmm(self._half_norms, tile, self._codebook.T, alpha=-1, out=buffer)

    def in_full(self, lowest: torch.Tensor) -> torch.Tensor:
        """The scores meant, from those found."""
        return lowest


class NumpyProduct(TorchProduct):
    """On a CPU, where numpy's BLAS is as fast as torch's or faster; the ones in the rows add |w|^2 / 2."""

    def __init__(self, rows, codebook, workers):
        super().__init__(rows, codebook, workers)
        self._weights = torch.cat([-codebook, self._half_norms[:, None]], dim=1).T.contiguous().numpy()

    def blocks(self):
        return ((start, block.numpy()) for start, block in self._rows.blocks(ones=True))

    def scores(self, tile, here):
        buffer = self._workers.buffer(len(tile), len(self._codebook), self._rows.dtype, self._rows.device)
        return np.matmul(tile, self._weights, out=buffer.numpy())


class BFloat16Product(TorchProduct):
    """Scores in bfloat16, on any device.

    That keeps 8 bits of a score, too few to tell units apart whose scores differ little. So the score is computed
    relative to a guess, last epoch's lowest: [x, 1, guess].[-w, |w|^2 / 2, -1] is summed in float32, and is small for
    the units that matter when it is rounded. |w|^2 / 2 and the guess take three columns each, to keep 24 bits.
    """

    def __init__(self, rows, codebook, workers, guess=None):
        super().__init__(rows, codebook, workers)
        self._guess = guess
        used = codebook.bfloat16().to(rows.dtype)
        ones = used.new_ones(len(used), 3)
        self._weights = torch.cat([-used, pieces(half_squares(used)), -ones, 0 * ones[:, :2]], dim=1).bfloat16().T

    def scores(self, tile, here):
        n_features = tile.shape[1]
        shape, device = (len(tile), self._weights.shape[1]), tile.device
        augmented = self._workers.buffer(len(tile), n_features + EXTRA_COLUMNS, torch.bfloat16, device)
        augmented[:, :n_features] = tile
        augmented[:, -8:-5] = 1
        augmented[:, -5:-2] = 0 if self._guess is None else pieces(self._guess[here])
        augmented[:, -2:] = 0
        rounded_scores = self._workers.buffer(*shape, torch.bfloat16, device, name="rounded")
        buffer = self._workers.buffer(*shape, torch.float32, device)
        buffer.copy_(torch.mm(augmented, self._weights, out=rounded_scores))
        return buffer.numpy() if device.type == "cpu" else buffer

    def in_full(self, lowest):
        return lowest if self._guess is None else lowest + self._guess


class Int8Product(TorchProduct):
    """Scores in whole numbers on a CPU: data and codebook in 8 bits, their products summed in 32.

    The data are x ~ a i and the codebook is w_k ~ b j_k, with whole numbers i and j_k of -127 to 127; then the score is
    a b (|w_k|^2 / 2 a b - i.j_k), and the bracket is all that the search needs.
    """

    def __init__(self, rows, codebook, workers):
        super().__init__(rows, codebook, workers)
        step = float(codebook.abs().max()) / INT8_STEPS or 1.0
        whole = torch.round(codebook / step)
        self._unit = rows.int8_step * step
        self._weights = whole.to(torch.int8).T
        self._constants = torch.round(half_squares(whole * step) / self._unit).int().numpy()

    def blocks(self):
        return self._rows.int8_blocks(self._workers)

    def scores(self, tile, here):
        if tile.dtype != torch.int8:
            tile = rounded(tile, self._rows.int8_step)
        buffer = self._workers.buffer(len(tile), len(self._codebook), torch.int32, tile.device)
        products = torch._int_mm(tile, self._weights, out=buffer).numpy()
        return np.subtract(self._constants, products, out=products)

    def in_full(self, lowest):
        return lowest * self._unit


def fits_int8(rows: CenteredRows, codebook: torch.Tensor) -> bool:
    """Whether no score can leave the range of 32 bits."""
    reach = INT8_STEPS * rows.int8_step
    return rows.n_features <= INT8_FEATURES and reach > 0 and float(codebook.abs().max()) <= 2 * reach


def half_squares(codebook: torch.Tensor) -> torch.Tensor:
    """|w|^2 / 2 of each unit."""
    return torch.linalg.vector_norm(codebook, dim=1).square_().mul_(0.5)


def take_lowest(scores, units, lowest, places) -> None:
    """The index and value of the lowest score of each row, and the next index if wanted; spoils `scores`.

    Parameters
    ----------
    scores : ndarray or torch.Tensor, shape (n_samples, n_units)
    units : the same, int64, shape (n_samples, n_best)
        To write into.
    lowest : the same, shape (n_samples,)
        To write into.
    places : the same, int64
        0, 1, …: at least `n_samples` of them.
    """
    places, n_best = places[: len(scores)], units.shape[1]
    for best in range(n_best):
        index = scores.argmin(1)
        units[:, best] = index
        if best == 0:
            lowest[:] = scores[places, index]
        if best + 1 < n_best:
            scores[places, index] = float("inf")


def tile_rows(n_units: int, n_features: int, item_bytes: int, device_type: str) -> int:
    """How many samples to search at a time.

    On a CPU the scores should still be in the core's cache when the least is sought, but a product of few rows spends
    too much of its time on arranging the codebook, the more so the larger that is.
    """
    if device_type != "cpu":
        return max(1, GPU_TILE_BYTES // (n_units * item_bytes))
    enough = 512 if n_units * n_features * item_bytes > 2**20 else 256
    return max(16, min(enough, 2**25 // (n_units * item_bytes)))


def pieces(values: torch.Tensor) -> torch.Tensor:
    """Three bfloat16 numbers that add up to each value: its first 24 bits; float32, shape (n, 3)."""
    high = values.bfloat16().float()
    middle = (values - high).bfloat16().float()
    return torch.stack([high, middle, values - high - middle], dim=1)
