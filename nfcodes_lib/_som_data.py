"""The data as a SOM sees them: centred, scaled, in blocks that fit the memory allowed; and the first codebook.

Distances as matrix products, |x - w|^2 = |x|^2 - 2 x.w + |w|^2, lose digits when the data lie far from zero, so the
mean is subtracted first. A power of two then keeps squares of very large or very small values inside the range of
float32; multiplying by it changes no digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ._som_distributed import Ranks
from ._som_workers import Workers

POWER_ITERATIONS = 3  # on a sample of the data; one more on all
PCA_SAMPLES = 2048
INT8_STEPS = 127  # from zero to the largest number of 8 bits
OVERSAMPLING = 8  # further directions carried along in the power iterations, which makes the two wanted converge


@dataclass(frozen=True)
class Frame:
    """Origin and unit of length in which distances are computed: ``(x - center) / scale``."""

    center: np.ndarray  # (n_features,), in the dtype of the data
    scale: float = 1.0  # a power of two
    reach: float = np.inf  # the largest coordinate of the data in this frame, if it was measured

    def inward(self, x: np.ndarray, *, out: np.ndarray | None = None, dtype=np.float32) -> np.ndarray:
        """(x - center) / scale as a C-ordered array of `dtype`."""
        if out is None:
            out = np.empty(x.shape, dtype)
        np.subtract(x, self.center, out=out, casting="same_kind")
        if self.scale != 1.0:
            out *= out.dtype.type(1.0 / self.scale)
        return out

    def outward(self, codebook: np.ndarray) -> np.ndarray:
        """Back to the units of the data, float32."""
        return (codebook.astype(np.float64) * self.scale + self.center).astype(np.float32)


def measure_frame(x: np.ndarray, ranks: Ranks) -> Frame:
    """The mean of the data over all ranks and a scale for their spread, from one pass over `x`."""
    n_features = x.shape[1]
    total = np.zeros(n_features + 1)
    low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    for start in range(0, len(x), step := max(1, 2**18 // n_features)):
        block = x[start : start + step]
        weights = np.full(len(block), 1.0 / len(block), block.dtype)  # means, since a sum could overflow
        total[:-1] += (weights @ block).astype(np.float64) * len(block)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    total[-1] = len(x)
    total = ranks.sum(torch.from_numpy(total).to(ranks.device)).cpu().numpy()
    limits = torch.from_numpy(np.concatenate([high, -low])).to(ranks.device)
    high, minus_low = np.split(ranks.max(limits).cpu().numpy(), 2)
    if max(high.max(), minus_low.max()) > np.finfo(np.float32).max:
        raise ValueError(
            f"expected data within the range of float32, got {max(high.max(), minus_low.max()):g}; scale them"
        )
    center = (total[:-1] / total[-1]).astype(x.dtype)
    spread = float(np.maximum(high - center, center + minus_low).max())
    scale = power_of_two(spread)
    return Frame(center, scale, spread / scale)


def power_of_two(spread: float) -> float:
    """1 for an ordinary spread, else the power of two just below it."""
    if spread == 0 or not np.isfinite(spread) or 2.0**-20 <= spread <= 2.0**20:
        return 1.0
    return float(2.0 ** np.floor(np.log2(spread)))


class CenteredRows:
    """Rows of `x` in a `frame`, as tensors on a device, block by block.

    Parameters
    ----------
    x : ndarray, shape (n_samples, n_features)
        May be memory-mapped: it is read a block at a time.
    frame : Frame
    dtype : torch.dtype
        float32 or float64.
    device : str or torch.device
    memory : int
        Bytes that may be spent on copies. Up to half of it, the centred data are made once and kept.
    ones : bool
        On a CPU, keep a column of ones beside the data, through which a product adds a constant and sums count. (On a
        GPU a row of odd length costs more than that saves.)
    int8 : bool
        Whether :meth:`int8_blocks` will be asked for, so that memory is set aside.
    """

    def __init__(
        self,
        x: np.ndarray,
        frame: Frame,
        *,
        dtype: torch.dtype,
        device,
        memory: int,
        ones: bool = True,
        int8: bool = False,
    ):
        self.x, self.frame, self.dtype, self.device = x, frame, dtype, torch.device(device)
        self.n_samples, self.n_features = x.shape
        self.has_ones = ones and self.device.type == "cpu"
        n_columns = self.n_features + self.has_ones
        row_bytes = n_columns * dtype.itemsize + int8 * self.n_features
        self.fits = self.n_samples * row_bytes <= memory // 2
        self.block_rows = self.n_samples if self.fits else max(1, memory // 4 // row_bytes)
        self._buffer = np.empty((self.block_rows, n_columns), str(dtype).removeprefix("torch."))
        self._buffer[:, self.n_features :] = 1
        self._kept = self._load(0) if self.fits else None
        self._int8 = None
        self._squares = None

    def blocks(self, *, ones: bool = False) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (index of the first row, rows), the rows with their column of ones if wanted.

        A block may be overwritten by the next.
        """
        n_columns = self.n_features + ones
        for start in range(0, self.n_samples, self.block_rows):
            yield start, (self._kept if self.fits else self._load(start))[:, :n_columns]

    @property
    def int8_step(self) -> float:
        """The coordinate that becomes 1 when the rows are rounded to 8 bits."""
        return self.frame.reach / INT8_STEPS

    def int8_blocks(self, workers: Workers) -> Iterator[tuple[int, torch.Tensor]]:
        """As :meth:`blocks`; of rows that are kept, rounded to 8 bits, which is done once."""
        if not self.fits:
            yield from self.blocks()
            return
        if self._int8 is None:
            self._int8 = torch.empty(self.n_samples, self.n_features, dtype=torch.int8)
            rows, step = self._kept[:, : self.n_features], max(1, 2**16 // self.n_features)

            def convert(first: int) -> None:
                self._int8[first : first + step] = rounded(rows[first : first + step], self.int8_step)

            workers.run(convert, range(0, self.n_samples, step))
        yield 0, self._int8

    def squares(self) -> torch.Tensor:
        """Squared length of each row, shape (n_samples,)."""
        if self._squares is None:
            lengths = [torch.linalg.vector_norm(block, dim=1) for _, block in self.blocks()]
            self._squares = torch.cat(lengths).square_()
        return self._squares

    def _load(self, start: int) -> torch.Tensor:
        rows = self.x[start : start + self.block_rows]
        self.frame.inward(rows, out=self._buffer[: len(rows), : self.n_features])
        return torch.from_numpy(self._buffer[: len(rows)]).to(self.device)


def rounded(rows: torch.Tensor, step: float) -> torch.Tensor:
    """The nearest whole numbers of steps, as int8."""
    return torch.round(rows / step).to(torch.int8)


def pca_codebook(
    x: np.ndarray, rows: CenteredRows, shape: tuple[int, int], seed, ranks: Ranks, workers: Workers
) -> np.ndarray:
    """A flat sheet in the plane of the two first principal components, reaching one standard deviation to each side.

    The longer side of the map lies along the first component (Kohonen 2001, "Self-Organizing Maps", 3.7). The
    components come from power iterations on a block of random directions (Halko, Martinsson and Tropp 2011,
    arXiv:0909.4061): most of them on a sample of the data, the last on all. Their signs are fixed, so a seed gives one
    codebook.

    Returns
    -------
    ndarray, float32, shape (n_units, n_features)
        In the frame of `rows`.
    """
    n_directions = min(2 + OVERSAMPLING, rows.n_features)
    basis = np.linalg.qr(seed.standard_normal((rows.n_features, n_directions)))[0]
    n_samples = sum(ranks.counts(len(x)))
    sample = torch.from_numpy(sampled_rows(x, rows.frame, min(n_samples, PCA_SAMPLES), seed, ranks)).to(rows.device)
    for _ in range(POWER_ITERATIONS):
        basis = np.linalg.qr(covariance_times(sample, basis, workers))[0]
    image = sum(covariance_times(block, basis, workers) for _, block in rows.blocks())
    image = ranks.sum(torch.from_numpy(image).to(ranks.device)).cpu().numpy() / n_samples
    variances, rotation = np.linalg.eigh((basis.T @ image + image.T @ basis) / 2)
    components = np.linalg.qr(image @ rotation[:, ::-1][:, :2])[0].T
    components *= np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])[:, None]
    lengths = np.sqrt(np.maximum(variances[::-1][:2], 0))
    down, along = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    down, along = (axis.ravel() for axis in np.meshgrid(down, along, indexing="ij"))
    coordinates = np.column_stack([down, along] if shape[0] > shape[1] else [along, down])[:, : len(components)]
    return (coordinates @ (components * lengths[:, None])).astype(np.float32)


def covariance_times(block: torch.Tensor, basis: np.ndarray, workers: Workers) -> np.ndarray:
    """X^T X times `basis` for one block of rows; float64, shape (n_features, n_directions).

    A tile at a time, which is still in the core's cache for the second product; the data are on the left of neither,
    since that is slow.
    """
    directions = torch.from_numpy(np.ascontiguousarray(basis.T)).to(block.device, block.dtype)
    tiles = block.split(max(1, 2**18 // block.shape[1]))
    parts = [None] * len(tiles)

    def multiply(k: int) -> None:
        parts[k] = ((tiles[k] @ directions.T).T @ tiles[k]).T.cpu().numpy()

    workers.run(multiply, range(len(tiles)))
    return sum(parts, np.zeros(basis.shape))


def sampled_rows(x: np.ndarray, frame: Frame, n_rows: int, seed: np.random.RandomState, ranks: Ranks) -> np.ndarray:
    """Random samples of the data, in random order; without repeats while there are enough.

    Returns
    -------
    ndarray, float32, shape (n_rows, n_features)
        In `frame`. With several ranks the samples are drawn from all, counted rank by rank, and all get the same.
    """
    counts = ranks.counts(len(x))
    chosen = seed.choice(sum(counts), n_rows, replace=n_rows > sum(counts))
    first = sum(counts[: ranks.rank])
    mine = (chosen >= first) & (chosen < first + len(x))
    samples = np.zeros((n_rows, x.shape[1]), np.float32)
    samples[mine] = frame.inward(x[chosen[mine] - first])
    return ranks.sum(torch.from_numpy(samples).to(ranks.device)).cpu().numpy()
