"""A decoder, trained to turn a network's codes back into images: the strongest prior for feature inversion.

The codes c of some layers, brought to unit variance and whitened to latents z = W (c - mean) with covariance 1, go
through a linear layer and a few convolutions that double the size. Training minimises, over images x,

    mean |G(z) - x|  +  weight * mean over layers of |code(G(z)) - code(x)|^2 / (variance of the layer's code).

The first term alone gives the median of all images with such a code (Dosovitskiy and Brox 2016, arXiv:1506.02753),
which is blurred where the code leaves much open, and evokes another code. The second asks that the drawing evoke the
code (after the same authors' arXiv:1602.02644, without the adversary). What it draws looks like its training images,
whatever the code says: that is the use of a prior, and its danger.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ._indices import check_count
from ._progress import progress_bar
from .capture import capture
from .encoder import Encoder
from .hooks import resolve_layers

SMALLEST_SIDE = 8  # maps that the convolutions begin with are at most this high and wide


class Decoder(nn.Module):
    """Latents -> images in [0, 1]; made by :func:`train_decoder`.

    Parameters
    ----------
    layers : tuple of str
        Whose codes the latents stand for.
    widths : tuple of int
        Units of each layer's code.
    shape : tuple of int
        (channels, height, width) of an image.
    n_latents : int
    pool : str or int
        As in :func:`nfcodes_lib.capture`.
    width : int
        Feature maps of the first convolution; halved with every doubling of the size, down to 16.
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        widths: tuple[int, ...],
        shape: tuple[int, int, int],
        *,
        n_latents: int,
        pool: str | int = "mean",
        width: int = 48,
    ):
        super().__init__()
        self.layers, self.pool, self.shape, self.n_latents = tuple(layers), pool, tuple(shape), n_latents
        n_doublings = max(1, math.ceil(math.log2(max(shape[1:]) / SMALLEST_SIDE)))
        self.first_size = tuple(math.ceil(side / 2**n_doublings) for side in shape[1:])
        n_maps = [max(16, width // 2**i) for i in range(n_doublings + 1)]
        self.first = nn.Linear(n_latents, width * math.prod(self.first_size))
        self.doublings = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(n_maps))
        for convolution in self.doublings:  # four equal maps at first, so that no chequerboard is drawn
            equal = convolution.weight.data[::4].repeat_interleave(4, 0)
            convolution.weight.data.copy_(equal)
            convolution.bias.data.zero_()
        self.refine = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in (n_maps[0], n_maps[-1]))
        self.last = nn.Conv2d(n_maps[-1], shape[0], 3, padding=1)
        nn.init.zeros_(self.last.weight)  # the untrained decoder draws the mean image
        nn.init.zeros_(self.last.bias)
        self.register_buffer("mean_image_logit", torch.zeros(shape))
        self.register_buffer("code_mean", torch.zeros(sum(widths)))
        self.register_buffer("whitening", torch.zeros(sum(widths), n_latents))
        for i, n_units in enumerate(widths):
            self.register_buffer(f"reading_{i}", torch.zeros(n_units, n_latents))
            self.register_buffer(f"spread_{i}", torch.ones(n_units))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Map latents (n, n_latents) to images (n, channels, height, width) in [0, 1]."""
        x = self.first(latents).reshape(len(latents), -1, *self.first_size)
        x = F.leaky_relu(x.contiguous(memory_format=torch.channels_last), 0.2)
        x = F.leaky_relu(self.refine[0](x), 0.2)
        for convolution in self.doublings:  # four maps become one of twice the size (Shi et al. 2016, arXiv:1609.05158)
            x = F.leaky_relu(F.pixel_shuffle(convolution(x), 2), 0.2)
        x = self.last(F.leaky_relu(self.refine[1](x), 0.2))
        _, height, width = self.shape
        return torch.sigmoid(self.mean_image_logit + x[..., :height, :width])

    def encode(self, codes: dict[str, torch.Tensor]) -> torch.Tensor:
        """Latents of images whose codes are known in all of the decoder's layers, shape (n, n_latents)."""
        return (torch.cat([codes[layer] for layer in self.layers], 1) - self.code_mean) @ self.whitening

    def guess(self, layer: str, codes: torch.Tensor) -> torch.Tensor:
        """Best linear guess of the latents from the codes of one layer (ridge regression), shape (n, n_latents).

        Zeros, the latents' mean, if the decoder was trained on other layers or codes of another width.
        """
        if not self.knows(layer, codes.shape[1]):
            return codes.new_zeros(len(codes), self.n_latents)
        i = self.layers.index(layer)
        mean = self.code_mean.split([len(self.spread(known)) for known in self.layers])[i]
        return (codes - mean) / self.spread(layer) @ getattr(self, f"reading_{i}")

    def knows(self, layer: str, n_units: int) -> bool:
        """Whether the decoder was trained on codes of this layer, of this width."""
        return layer in self.layers and len(self.spread(layer)) == n_units

    def spread(self, layer: str) -> torch.Tensor:
        """Standard deviation of each unit of a layer's code over the training images."""
        return getattr(self, f"spread_{self.layers.index(layer)}")


def train_decoder(
    model: nn.Module,
    images: torch.Tensor,
    *,
    layers: str | list[str] | tuple[str, ...],
    pool: str | int = "mean",
    n_latents: int = 96,
    width: int = 48,
    n_epochs: int = 4,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    code_weight: float = 0.1,
    random_state: int = 0,
    progress: bool | None = None,
) -> Decoder:
    """Train a decoder for the codes of `layers` on `images`.

    Parameters
    ----------
    model : torch.nn.Module
        Whose codes are decoded; not changed. The decoder lives on its device.
    images : torch.Tensor, float32 in [0, 1], shape (n, channels, height, width)
    layers : str or list of str
        With several, their codes are joined: one decoder then serves them all, and knows more of an image than any
        single layer. Give one to ask what that layer alone tells.
    pool : {"mean", "max", "none"} or int
    n_latents : int
        Principal components of the joined codes that are kept, at most as many as there are.
    width : int
        Of the decoder; its time grows with the square.
    n_epochs, batch_size : int
    learning_rate : float
        Peak of Adam's, in one cycle.
    code_weight : float
        Weight of the code term; 0 gives the pixel term alone, and saves half of the time.
    random_state : int
    progress : bool, optional

    Returns
    -------
    Decoder
        In eval mode, its parameters frozen.

    Raises
    ------
    ValueError
        If there are fewer than two images, or a layer, `pool` or a number is not as described.
    TypeError
        If the images are not a float tensor.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> images, _ = nf.load_images("train", n_samples=64)
    >>> decoder = train_decoder(nf.load_model("resnet"), images, layers=["layer3"], n_epochs=1, n_latents=8)
    >>> decoder(torch.zeros(2, 8)).shape
    torch.Size([2, 1, 28, 28])
    """
    for name, value in {"n_latents": n_latents, "n_epochs": n_epochs, "batch_size": batch_size, "width": width}.items():
        check_count(value, name)
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        raise TypeError(f"images must be a float tensor in [0, 1], got {getattr(images, 'dtype', type(images))}")
    if images.ndim != 4 or len(images) < 2:
        raise ValueError(f"expected two images or more, (n, channels, height, width), got {tuple(images.shape)}")
    layers = resolve_layers(model, layers)
    codes = capture(model, images, layers=layers, pool=pool, progress=progress)
    encoder = Encoder(model, layers, probe=images[:2], pool=pool)
    targets = {layer: torch.from_numpy(np.array(codes[layer])).to(encoder.device) for layer in layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        widths = tuple(code.shape[1] for code in targets.values())
        n_latents = min(n_latents, sum(widths), len(images) - 1)
        decoder = Decoder(layers, widths, tuple(images.shape[1:]), n_latents=n_latents, pool=pool, width=width)
    decoder = decoder.to(encoder.device).to(memory_format=torch.channels_last)
    latents = _measure(decoder, images, targets)
    variances = {layer: code.var(0).sum().clamp_min(1e-12) for layer, code in targets.items()}

    generator = torch.Generator().manual_seed(random_state)
    n_steps = n_epochs * -(-len(images) // batch_size)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(n_steps, 2), pct_start=0.15, cycle_momentum=False
    )
    with progress_bar(show=progress, total=n_steps, desc="decoder", unit="batch") as bar:
        for _ in range(n_epochs):
            for rows in torch.randperm(len(images), generator=generator).split(batch_size):
                drawn = decoder(latents[rows])
                loss = (drawn - images[rows].to(drawn.device)).abs().mean()
                if code_weight:
                    found = encoder(drawn)
                    errors = [(found[k] - targets[k][rows]).pow(2).sum(1).mean() / variances[k] for k in layers]
                    loss = loss + code_weight * sum(errors) / len(layers)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
    return decoder.eval().requires_grad_(False)


@torch.no_grad()
def _measure(decoder: Decoder, images: torch.Tensor, codes: dict[str, torch.Tensor], ridge: float = 1e-3):
    """Set the decoder's mean image, whitening and regressions from the training codes; return their latents."""
    decoder.mean_image_logit.copy_(torch.logit(images.mean(0).clamp(0.02, 0.98)))
    scales = [code.var(0).sum().sqrt().clamp_min(1e-12).expand(code.shape[1]) for code in codes.values()]
    joined, scale = torch.cat(list(codes.values()), 1), torch.cat(scales)
    decoder.code_mean.copy_(joined.mean(0))
    centred = (joined - decoder.code_mean) / scale
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, directions = variances.flip(0)[: decoder.n_latents], directions.flip(1)[:, : decoder.n_latents]
    deviations = variances.clamp_min(1e-6 * variances[0].clamp_min(1e-12)).sqrt()
    decoder.whitening.copy_(directions / deviations / scale[:, None])
    decoder.first.weight.mul_((deviations / deviations[0]).sqrt())  # begin with what varies most
    latents = decoder.encode(codes)
    for i, code in enumerate(codes.values()):
        spread = code.std(0) + 1e-3 * code.std(0).mean() + 1e-12
        x = (code - code.mean(0)) / spread
        gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], device=x.device)
        getattr(decoder, f"reading_{i}").copy_(torch.linalg.solve(gram, x.T @ latents / len(x)))
        getattr(decoder, f"spread_{i}").copy_(spread)
    return latents
