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
from itertools import pairwise

import numpy as np
import torch

from ._som_data import CenteredRows
from ._som_distributed import Ranks
from ._som_neighborhood import Neighborhood
from ._som_workers import Workers

GPU_TILE_BYTES = 2**28  # of scores at a time, to keep the device busy
FULL_PRECISION_EPOCHS = 2  # at the end of training, when the search runs at lower precision
SHARED_NUMBERS = 2**19  # of data, that another worker should add up; for fewer, handing over takes longer
EXTRA_COLUMNS = 8  # beside the data in a search at lower precision


def train(
    rows: CenteredRows,
    codebook: np.ndarray,
    radii: list[float],
    neighborhood: Neighborhood,
    *,
    search_dtype: torch.dtype,
    ranks: Ranks,
    workers: Workers,
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
        float32 or bfloat16; the BMUs of the last two epochs and of the final codebook are searched in float32 anyhow.
    ranks : Ranks
    workers : Workers
        Open.

    Yields
    ------
    codebook : ndarray, float32, shape (n_units, n_features)
    bmus : ndarray, int64, shape (n_samples,)
        Best-matching unit of each sample of this rank in that codebook.
    quantization_error : float
        Mean distance to the BMU over all ranks, in the frame of `rows`.
    """
    codebook = torch.from_numpy(codebook).to(rows.device)
    scores = None
    for epoch, radius in enumerate(radii):
        low = search_dtype != rows.dtype and epoch < len(radii) - FULL_PRECISION_EPOCHS
        search = Search(rows, codebook, workers, low=search_dtype if low else None, guess=scores)
        scores = search.scores
        yield codebook.cpu().numpy(), search.units[:, 0].cpu().numpy(), search.mean_distance(ranks)
        codebook = neighborhood.update(codebook, ranks.sum(search.totals()), radius, workers)
    search = Search(rows, codebook, workers)
    yield codebook.cpu().numpy(), search.units[:, 0].cpu().numpy(), search.mean_distance(ranks)


class Search:
    """The best-matching units of all rows, found when it is made.

    The score of unit k for a sample x is |w_k|^2 / 2 - x.w_k = (|x - w_k|^2 - |x|^2) / 2, so the lowest wins.

    Parameters
    ----------
    rows : CenteredRows
    codebook : torch.Tensor, shape (n_units, n_features)
        On the device and in the dtype of `rows`.
    workers : Workers
    n_best : {1, 2}
    low : torch.dtype, optional
        Lower precision to search in.
    guess : torch.Tensor, shape (n_samples,), optional
        About what the lowest scores will be, for a search at lower precision.

    Attributes
    ----------
    units : torch.Tensor, int64, shape (n_samples, n_best)
        Nearest first; of equally near units the one with the lowest index.
    scores : torch.Tensor, shape (n_samples,)
        The lowest.

    Notes
    -----
    bfloat16 keeps 8 bits of a score, too few to tell units apart whose scores differ little. So the score is computed
    relative to a guess, last epoch's lowest: [x, 1, guess].[-w, |w|^2 / 2, -1] is summed in float32, and is small for
    the units that matter when it is rounded. |w|^2 / 2 and the guess take three columns each, to keep 24 bits.
    """

    def __init__(self, rows, codebook, workers, *, n_best=1, low=None, guess=None):
        self.rows, self.codebook, self.workers, self.low, self.guess = rows, codebook, workers, low, guess
        self.n_units = len(codebook)
        self.units = torch.empty(rows.n_samples, n_best, dtype=torch.int64, device=rows.device)
        self.scores = torch.empty(rows.n_samples, dtype=rows.dtype, device=rows.device)
        used = codebook.to(low).to(rows.dtype) if low else codebook
        half_norms = torch.linalg.vector_norm(used, dim=1, keepdim=True).square_().mul_(0.5)
        if low:
            ones = used.new_ones(self.n_units, 3)
            self._weights = torch.cat([-used, pieces(half_norms[:, 0]), -ones, 0 * ones[:, :2]], dim=1).to(low).T
            search = self._search_low
        elif rows.has_ones:
            self._weights = torch.cat([-used, half_norms], dim=1).T.contiguous().numpy()
            search = self._search_numpy
        else:
            self._half_norms = half_norms[:, 0]
            search = self._search_full
        self._step = tile_rows(self.n_units, rows.n_features, rows.dtype.itemsize, rows.device.type)
        for start, block in rows.blocks(ones=rows.has_ones and not low):
            share = workers.share(len(block), self._step)
            workers.run(search, [(start + k, block[k : k + share]) for k in range(0, len(block), share)])

    def _search_full(self, piece) -> None:
        for start, tile in self._tiles(*piece):
            buffer = self.workers.buffer(len(tile), self.n_units, tile.dtype, tile.device)
            torch.addmm(self._half_norms, tile, self.codebook.T, alpha=-1, out=buffer)
            self._take_lowest(buffer, start)

    def _search_numpy(self, piece) -> None:
        """On a CPU, where numpy's BLAS is as fast as torch's or faster; the ones in the rows add |w|^2 / 2."""
        start, rows = piece
        buffer = self.workers.buffer(min(self._step, len(rows)), self.n_units, rows.dtype, rows.device).numpy()
        units, lowest, places = self.units.numpy(), self.scores.numpy(), np.arange(len(buffer))
        for first, tile in self._tiles(start, rows.numpy()):
            here = slice(first, first + len(tile))
            take_lowest(np.matmul(tile, self._weights, out=buffer[: len(tile)]), units[here], lowest[here], places)

    def _tiles(self, start: int, rows) -> Iterator[tuple[int, torch.Tensor | np.ndarray]]:
        """Cut rows into about equal tiles that are searched at a time."""
        step = max(1, -(-len(rows) // -(-len(rows) // self._step)))
        for first in range(0, len(rows), step):
            yield start + first, rows[first : first + step]

    def _search_low(self, piece) -> None:
        for start, tile in self._tiles(*piece):
            here = slice(start, start + len(tile))
            augmented = self.workers.buffer(len(tile), tile.shape[1] + EXTRA_COLUMNS, self.low, tile.device)
            augmented[:, : tile.shape[1]] = tile
            augmented[:, -8:-5] = 1
            augmented[:, -5:-2] = 0 if self.guess is None else pieces(self.guess[here])
            augmented[:, -2:] = 0
            buffer = self.workers.buffer(len(tile), self.n_units, torch.float32, tile.device)
            rounded = self.workers.buffer(len(tile), self.n_units, self.low, tile.device, name="rounded")
            buffer.copy_(torch.mm(augmented, self._weights, out=rounded))
            self._take_lowest(buffer, start)
            if self.guess is not None:
                self.scores[here] += self.guess[here]

    def _take_lowest(self, scores: torch.Tensor, start: int) -> None:
        here = slice(start, start + len(scores))
        found = scores, self.units[here], self.scores[here], torch.arange(len(scores), device=scores.device)
        if scores.device.type == "cpu":  # numpy's search is several times faster than torch's
            found = [tensor.numpy() for tensor in found]
        take_lowest(*found)

    def mean_distance(self, ranks: Ranks) -> float:
        """Mean distance to the BMU over all ranks.

        From the expanded square, so a distance below 3e-4 of the length of the sample is not told from zero.
        """
        distances = (self.rows.squares() + 2 * self.scores).clamp_(min=0).sqrt_()
        total = torch.tensor([float(distances.cpu().sum(dtype=torch.float64)), len(distances)], dtype=torch.float64)
        total = ranks.sum(total.to(ranks.device)).tolist()
        return total[0] / total[1]

    def totals(self) -> torch.Tensor:
        """Sum of the samples of each unit and, in a last column, their number: float, (n_units, n_features + 1)."""
        totals = self.codebook.new_zeros(self.n_units, self.rows.n_features + 1)
        for start, block in self.rows.blocks(ones=self.rows.has_ones):
            add_up(totals[:, : block.shape[1]], block, self.units[start : start + len(block), 0], self.workers)
        if not self.rows.has_ones:
            totals[:, -1] = torch.bincount(self.units[:, 0], minlength=self.n_units)
        return totals


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


def add_up(totals: torch.Tensor, samples: torch.Tensor, index: torch.Tensor, workers: Workers) -> None:
    """Add each sample to the row of `totals` that `index` names.

    The samples of a unit are visited together and always in the same order, so that a GPU too repeats its sums to the
    bit; the workers share the units.
    """
    order = stable_order(index, len(totals))
    ends = torch.bincount(index, minlength=len(totals)).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])
    first_samples = starts.tolist()
    n_shares = min(4 * workers.n_threads, samples.numel() // SHARED_NUMBERS) if workers.n_threads > 1 else 1
    wanted = np.linspace(0, len(index), max(1, n_shares) + 1)[1:-1]
    shares = sorted({0, *np.searchsorted(first_samples[1:], wanted).tolist(), len(totals)})

    def add(share):
        first, last = share
        here = slice(first_samples[first], first_samples[last])
        totals[first:last] += torch.nn.functional.embedding_bag(
            order[here], samples, starts[first:last] - first_samples[first], mode="sum"
        )

    workers.run(add, pairwise(shares))


def stable_order(index: torch.Tensor, n_units: int) -> torch.Tensor:
    """Places of the samples of unit 0, of unit 1, …; on a CPU by numpy, which sorts 16-bit numbers by their digits."""
    if index.device.type == "cpu" and n_units <= 2**16:
        return torch.from_numpy(index.numpy().astype(np.uint16).argsort(kind="stable"))
    return torch.argsort(index, stable=True)
