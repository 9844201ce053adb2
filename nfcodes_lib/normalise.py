"""The normalisation of pixels, as a part of a network: its input is then an image in [0, 1], whatever the network."""

from __future__ import annotations

import torch
from torch import nn


class Normalise(nn.Module):
    """(x - mean) / std with fixed numbers, as the first layer of a network; buffers, so they follow ``.to(device)``.

    Parameters
    ----------
    mean, std : float or tuple of float
        One number for all pixels, or one for each channel.
    """

    def __init__(self, mean: float | tuple[float, ...], std: float | tuple[float, ...]):
        super().__init__()
        for name, value in {"mean": mean, "std": std}.items():
            numbers = torch.tensor(value)
            self.register_buffer(name, numbers.reshape(-1, 1, 1) if numbers.ndim else numbers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise pixels, any shape."""
        return (x - self.mean) / self.std
