"""What an image is taken to be, before any code is looked at: parametrisations and penalties for feature inversion.

A code of a few dozen numbers is evoked by countless images, nearly all of them noise. Which one an optimiser finds is
decided by how the image is written down and by what is penalised. From the weakest prior to the strongest:

- :class:`Pixels`: every pixel on its own; :func:`total_variation` then asks that neighbours be alike (Mahendran and
  Vedaldi 2015, arXiv:1412.0035);
- :class:`Fourier`: the image's spectrum, scaled by 1 / frequency as that of natural images is, so that a step changes
  large shapes before it changes grain (Olah et al. 2017, distill.pub/2017/feature-visualization);
- :func:`random_affine`: the code must survive small shifts, turns and scalings, which grain does not (same source);
- :class:`Latents`: only what a decoder learned from images can draw (Dosovitskiy and Brox 2016, arXiv:1506.02753;
  Nguyen et al. 2016, arXiv:1605.09304, for the search in its input).

All of them keep pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


class Pixels:
    """The pixels themselves, clipped to [0, 1] after every step.

    Parameters
    ----------
    n_images : int
    shape : tuple of int
        (channels, height, width).
    generator : torch.Generator
        Draws the start: mid-grey with noise of standard deviation 0.1.
    device : str or torch.device
    """

    learning_rate = 0.3

    def __init__(self, n_images: int, shape: tuple[int, int, int], *, generator: torch.Generator, device="cpu"):
        noise = torch.randn(n_images, *shape, generator=generator)
        self.parameter = (0.5 + 0.1 * noise).clamp(0, 1).to(device).requires_grad_(True)

    def images(self) -> torch.Tensor:
        """Images of shape (n, channels, height, width), differentiable in ``parameter``."""
        return self.parameter

    def project(self) -> None:
        """Called after each step: back into the bounds."""
        with torch.no_grad():
            self.parameter.clamp_(0, 1)

    def penalty(self) -> torch.Tensor:
        """What the parametrisation itself holds against each image, shape (n,): nothing."""
        return self.parameter.new_zeros(len(self.parameter))


class Fourier(Pixels):
    """The spectrum, each coefficient scaled by 1 / frequency; a sigmoid brings the pixels into [0, 1].

    Parameters
    ----------
    n_images, shape, generator, device
        As in :class:`Pixels`; the start is smooth noise about mid-grey.
    """

    learning_rate = 0.12

    def __init__(self, n_images: int, shape: tuple[int, int, int], *, generator: torch.Generator, device="cpu"):
        channels, height, width = shape
        self.size = height, width
        rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
        frequency = (rows**2 + columns**2).sqrt().clamp_min(1 / max(height, width))
        self.scale = ((height * width) ** 0.5 / frequency).to(device)
        noise = 0.02 * torch.randn(n_images, channels, height, width // 2 + 1, 2, generator=generator)
        self.parameter = noise.to(device).requires_grad_(True)

    def images(self) -> torch.Tensor:
        """Images of shape (n, channels, height, width), differentiable in ``parameter``."""
        spectrum = torch.view_as_complex(self.parameter) * self.scale
        return torch.sigmoid(torch.fft.irfft2(spectrum, s=self.size))

    def project(self) -> None:
        """Nothing to do: the sigmoid keeps the bounds."""


class Latents(Pixels):
    """The input of a decoder; the image is what the decoder makes of it.

    Parameters
    ----------
    start : torch.Tensor, float32, shape (n, n_latents)
        Where to begin, in units of the standard deviation that the latents have over the decoder's training images.
    decoder : callable
        Latents (n, n_latents) -> images in [0, 1].
    weight : float
        Of the penalty, the mean square of an image's latents: its improbability under the normal distribution that
        the training images' latents have by construction (zero mean, unit covariance).
    """

    learning_rate = 0.1

    def __init__(self, start: torch.Tensor, decoder: Callable[[torch.Tensor], torch.Tensor], *, weight: float):
        self.decoder, self.weight = decoder, weight
        self.parameter = start.clone().requires_grad_(True)

    def images(self) -> torch.Tensor:
        """Images of shape (n, channels, height, width), differentiable in ``parameter``."""
        return self.decoder(self.parameter)

    def project(self) -> None:
        """Nothing to do: the decoder keeps the bounds."""

    def penalty(self) -> torch.Tensor:
        """``weight`` times the mean square of each image's latents, shape (n,)."""
        return self.weight * self.parameter.pow(2).mean(1)


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels, along rows plus along columns.

    Parameters
    ----------
    images : torch.Tensor, shape (n, channels, height, width)

    Returns
    -------
    torch.Tensor, shape (n,)
        0 for a flat image, 2 for a chequerboard of zeros and ones.

    Notes
    -----
    The anisotropic form of Rudin, Osher and Fatemi (1992); it prefers flat areas with sharp edges to grain.

    Examples
    --------
    >>> board = (torch.arange(16).reshape(4, 4) + torch.arange(4)[:, None]) % 2
    >>> total_variation(torch.stack([board, torch.ones(4, 4)])[:, None].float())
    tensor([2., 0.])
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    across = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    return down + across


def random_affine(
    images: torch.Tensor, *, shift: float, degrees: float, zoom: float, generator: torch.Generator
) -> torch.Tensor:
    """Shift, turn and scale each image at random, differentiably; what comes in from outside repeats the border.

    Parameters
    ----------
    images : torch.Tensor, shape (n, channels, height, width)
    shift : float
        Largest shift, in pixels, along either axis.
    degrees : float
        Largest turn, to either side.
    zoom : float
        Largest relative change of size: 0.05 scales by 0.95 to 1.05.
    generator : torch.Generator

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    n, _, height, width = images.shape
    uniform = (torch.rand(4, n, generator=generator) * 2 - 1).to(images.device)
    turn, size = torch.deg2rad(degrees * uniform[0]), 1 + zoom * uniform[1]
    cosine, sine = size * turn.cos(), size * turn.sin()
    dx, dy = 2 * shift / width * uniform[2], 2 * shift / height * uniform[3]
    theta = torch.stack([cosine, -sine * height / width, dx, sine * width / height, cosine, dy], 1).reshape(n, 2, 3)
    grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
