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
from ._som_search import Search
from ._som_workers import Workers

FULL_PRECISION_EPOCHS = 1  # at the end of training, when the search runs at lower precision; two make no better maps
SHARED_NUMBERS = 2**19  # of data, that another worker should add up; for fewer, handing over takes longer
COARSE = 0.25  # share of the data that may be lost in rounding to 8 bits


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
        float32, bfloat16 or int8 (on a CPU); the BMUs of the last epoch and of the final codebook are searched in
        float32 anyhow.
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
        scores, units = search.scores, search.units[:, 0]
        yield codebook.cpu().numpy(), units.cpu().numpy(), search.mean_distance(ranks)
        totals = ranks.sum(sums_per_unit(rows, units, len(codebook), workers))
        codebook = neighborhood.update(codebook, totals, radius, workers)
    search = Search(rows, codebook, workers)
    yield codebook.cpu().numpy(), search.units[:, 0].cpu().numpy(), search.mean_distance(ranks)


def too_coarse(rows: CenteredRows, ranks: Ranks) -> bool:
    """Whether the root mean square of rounding to 8 bits is more than a quarter of the data's own."""
    squares = torch.tensor([float(rows.squares().sum(dtype=torch.float64)), rows.n_samples], dtype=torch.float64)
    total, n_samples = ranks.sum(squares.to(ranks.device)).tolist()
    return rows.int8_step**2 / 12 * rows.n_features * n_samples > COARSE**2 * total


def sums_per_unit(rows: CenteredRows, units: torch.Tensor, n_units: int, workers: Workers) -> torch.Tensor:
    """Sum of the samples of each unit and, in a last column, their number: float, (n_units, n_features + 1)."""
    totals = torch.zeros(n_units, rows.n_features + 1, dtype=rows.dtype, device=rows.device)
    for start, block in rows.blocks(ones=rows.has_ones):
        add_up(totals[:, : block.shape[1]], block, units[start : start + len(block)], workers)
    if not rows.has_ones:
        totals[:, -1] = torch.bincount(units, minlength=n_units)
    return totals


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
