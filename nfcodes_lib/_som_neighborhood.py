"""The neighbourhood of a map: how much each unit takes over from the samples of the others.

The product of the neighbourhood matrix h(k, b) with the sums per unit is a convolution over the map, so it is computed
in whichever way is the shortest: by axes where h is a product of its rows and columns, by Fourier transforms on very
large maps, else by the matrix, a few rows of the map at a time and without those that the neighbourhood cannot reach.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import next_fast_len

from . import grids
from ._som_workers import Workers

UNITS_AT_ONCE = 160  # rows of the neighbourhood matrix: few, as each block reaches beyond itself, but not too few
TRANSFORM_BYTES = 2**23
LARGE_MAP = 4096  # units from which a Fourier transform beats the neighbourhood matrix


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

    def update(self, codebook, totals, radius: float, workers: Workers) -> torch.Tensor:
        """The codebook after one epoch; units without any weight keep their vector.

        Parameters
        ----------
        codebook : torch.Tensor, shape (n_units, n_features)
        totals : torch.Tensor, shape (n_units, n_features + 1)
            Sum of the samples of each unit and, in the last column, their number.
        radius : float
        workers : Workers
        """
        weights, values = self.weights(radius), totals.reshape(*self.shape, -1)
        least = torch.finfo(torch.float32).tiny  # below it a quotient would have no digits
        if self.separable:
            smooth = self._by_axes(weights, values)
        elif self.cut and len(totals) >= LARGE_MAP and self.smallest > 1e-6 and totals.device.type != "mps":
            smooth = self._by_transform(weights, values, workers)
            least = self.smallest / 2  # of a transform, what should be zero is 1e-12 or so
        else:
            smooth = self._by_matrix(weights, values, radius, workers)
        smooth = smooth.reshape(len(codebook), -1)
        total = smooth[:, -1:]
        return torch.where(total > least, smooth[:, :-1] / total, codebook)

    def _by_axes(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """A Gaussian of d^2 = di^2 + dj^2 is a product: smooth along the columns of the map, then along its rows."""
        n_rows, n_columns = self.shape
        down = weights[0, :, n_columns - 1].unfold(0, n_rows, 1)  # entry (n_rows - 1 - i, i') is h(i' - i)
        along = weights[0, n_rows - 1].unfold(0, n_columns, 1)
        smooth = (down.flip(0) @ values.reshape(n_rows, -1)).reshape(values.shape)
        return torch.matmul(along.flip(0), smooth)

    def _by_matrix(self, weights: torch.Tensor, values: torch.Tensor, radius: float, workers: Workers) -> torch.Tensor:
        """The product with the neighbourhood matrix, a few rows of the map at a time.

        Row i of the map, read backwards, finds its weights in the table at increasing places, so that a strided view
        is the matrix; hence the flips.
        """
        (n_rows, n_columns), n_tables, stride = self.shape, len(weights), weights.stride(1)
        smooth = torch.empty_like(values)
        reach = int(np.ceil(radius / self.row_step)) if self.cut and self.planar else n_rows
        step = max(1, UNITS_AT_ONCE // n_columns)

        def smooth_rows(chosen):
            low, high = max(0, chosen[0] - reach), min(n_rows, chosen[-1] + reach + 1)
            table = weights[chosen[0] % n_tables]
            matrix = table.as_strided(
                (len(chosen), n_columns, high - low, n_columns),
                (n_tables * stride, 1, stride, 1),
                table.storage_offset() + (n_rows - 1 - chosen[-1] + low) * stride,
            ).reshape(len(chosen) * n_columns, -1)
            part = product(matrix, values[low:high].flatten(0, 1)).reshape(len(chosen), n_columns, -1)
            smooth[chosen.start : chosen.stop : n_tables] = part.flip(0, 1)

        lines = [range(parity, n_rows, n_tables) for parity in range(n_tables)]
        workers.run(smooth_rows, [line[k : k + step] for line in lines for k in range(0, len(line), step)])
        return smooth

    def _by_transform(self, weights: torch.Tensor, values: torch.Tensor, workers: Workers) -> torch.Tensor:
        """The same sums as a convolution over the map, by Fourier transforms in float64, a few features at a time."""
        n_rows, n_columns = self.shape
        size = tuple(next_fast_len(2 * n - 1, real=True) for n in self.shape)
        padded = weights.new_zeros((len(weights), *size), dtype=torch.float64)
        padded[:, : weights.shape[1], : weights.shape[2]] = weights.flip(1, 2)
        kernels = torch.fft.rfft2(padded.roll((1 - n_rows, 1 - n_columns), (1, 2)))
        smooth = torch.empty_like(values)
        step = max(1, TRANSFORM_BYTES // (16 * size[0] * size[1]))

        def smooth_features(first):
            transformed = torch.fft.rfft2(values[:, :, first : first + step].permute(2, 0, 1).double(), s=size)
            for parity, kernel in enumerate(kernels):
                full = torch.fft.irfft2(transformed * kernel, s=size)
                part = full[:, parity : n_rows : len(kernels), :n_columns].permute(1, 2, 0)
                smooth[parity :: len(kernels), :, first : first + step] = part

        workers.run(smooth_features, range(0, values.shape[2], step))
        return smooth


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a @ b``, on a CPU by numpy, whose BLAS is as fast as torch's or faster."""
    return torch.from_numpy(a.numpy() @ b.numpy()) if a.device.type == "cpu" else a @ b
