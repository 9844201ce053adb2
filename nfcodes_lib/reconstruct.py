"""From a code back to an image that evokes it, and the proof that it does: feature inversion.

For a target code t of a layer with code function f, an image is sought that minimises

    |(f(x) - t) M|^2  +  total_variation_weight * TV(x)  +  the parametrisation's own penalty

over x in [0, 1] (Mahendran and Vedaldi 2015, arXiv:1412.0035), by Adam on one of the parametrisations of
:mod:`nfcodes_lib.priors`. M brings the code's error to unit scale. Meeting the code is the easy half: an image of noise
can do it. So the result carries what the network makes of each image, measured on the network itself and not on the
frozen copy that was optimised; what another network makes of it, :func:`nfcodes_lib.reconstruction.check_images` says.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from . import priors
from ._indices import check_count, check_indices
from ._names import did_you_mean
from ._progress import progress_bar
from .capture import capture
from .decoder import Decoder
from .encoder import Encoder
from .reconstruction import DeadTargetWarning, Reconstruction, as_codes, place_on_map

PARAMETRIZATIONS = {"pixel": priors.Pixels, "fourier": priors.Fourier}
NORMALIZATIONS = ("total", "unit", "whiten")
TRANSFORMED_SHARE = 0.7  # of the steps; the last ones see the image as it is, so that it is what meets the code


def reconstruct(
    model: nn.Module,
    layer: str,
    targets,
    *,
    decoder: Decoder | None = None,
    parametrization: str = "fourier",
    pool: str | int = "mean",
    shape: tuple[int, int, int] = (1, 28, 28),
    som=None,
    units=None,
    reference=None,
    normalization: str = "total",
    n_steps: int = 100,
    learning_rate: float | None = None,
    total_variation_weight: float = 0.0,
    latent_weight: float = 1e-3,
    jitter: float = 0.0,
    degrees: float = 0.0,
    zoom: float = 0.0,
    n_restarts: int = 1,
    batch_size: int = 128,
    random_state: int = 0,
    progress: bool | None = None,
) -> Reconstruction:
    """Find an image for each target code.

    Parameters
    ----------
    model : torch.nn.Module
        Images in [0, 1] -> logits, normalisation inside. Run in eval mode on its own device; given back as it came.
    layer : str
    targets : array-like of float, shape (k, n_units) or (rows, columns, n_units)
        Codebook vectors (a whole codebook may be passed as it is), real codes, any codes of this layer and `pool`.
    decoder : Decoder, optional
        Search its latents instead of pixels, beginning at its guess: the strongest prior. `shape` is then its own.
    parametrization : {"fourier", "pixel"}
        Without a decoder.
    pool : {"mean", "max", "none"} or int
        How the codes were captured.
    shape : tuple of int
        (channels, height, width) of the images to make.
    som : SOM, optional
        The map, to say where each image falls on it.
    units : array-like of int, shape (k,), optional
        Unit of the map that each target belongs to; the target's own BMU if None.
    reference : array-like of float, shape (n, n_units), optional
        Real codes, from which the error's scale is taken; the decoder's training images if it knows the layer, else
        the targets themselves, if None.
    normalization : {"total", "unit", "whiten"}
        M: one number, the codes' total standard deviation; one per unit; or the inverse root of their covariance.
        ``"total"`` measures as the map does; ``"whiten"`` makes directions of small variance count as much as others.
    n_steps : int
    learning_rate : float, optional
        Of Adam, at the start; it falls to a twentieth along a cosine. The parametrisation's own if None.
    total_variation_weight, latent_weight : float
        Of the penalties; the latter only with a decoder.
    jitter, degrees, zoom : float
        Largest random shift (pixels), turn and relative change of size during the first 70 % of the steps.
    n_restarts : int
        Starts from different random numbers; each target keeps the image of smallest code error.
    batch_size : int
        Targets per run, which bounds memory. Random numbers are drawn batch by batch.
    random_state : int
    progress : bool, optional
        Show a progress bar; None shows one unless in CI.

    Returns
    -------
    Reconstruction

    Raises
    ------
    ValueError
        If a layer or a choice is unknown, targets are not finite or have another width than the layer's codes.

    Warns
    -----
    DeadTargetWarning
        If the error of a target had no gradient at any step, in any restart.

    Notes
    -----
    Same arguments, same images, on one machine; another processor may round differently and end elsewhere.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> model = nf.load_model("resnet")
    >>> images, _ = nf.load_images("test", n_samples=2)
    >>> targets = nf.capture(model, images, layers="layer4")["layer4"]
    >>> rec = reconstruct(model, "layer4", targets, n_steps=10, random_state=0)
    >>> rec.images.shape, bool(rec.loss[-1] < rec.loss[0])
    (torch.Size([2, 1, 28, 28]), True)
    """
    names = {"n_steps": n_steps, "n_restarts": n_restarts, "batch_size": batch_size}
    for name, value in names.items():
        check_count(value, name)
    if parametrization not in PARAMETRIZATIONS:
        hint = did_you_mean(parametrization, PARAMETRIZATIONS)
        raise ValueError(f"parametrization must be one of {list(PARAMETRIZATIONS)}, got {parametrization!r}{hint}")
    targets = as_codes(targets, "targets")
    shape = tuple(shape) if decoder is None else decoder.shape
    probe = torch.full((2, *shape), 0.5)
    n_units = capture(model, probe, layers=layer, pool=pool, progress=False)[layer].shape[1]
    if targets.shape[1] != n_units:
        raise ValueError(
            f"targets must have {n_units} units, the width of {layer!r} with pool={pool!r} and images of {shape}, "
            f"got {targets.shape[1]}; give the pool (and the shape) that made the codes"
        )
    encoder = Encoder(model, layer, probe=probe, pool=pool)
    scale = _normalizer(normalization, targets, reference, decoder, layer).to(encoder.device)
    if units is not None and som is None:
        raise ValueError("units name units of a map, but som is None; pass the map")
    if som is not None:
        units = som.predict(targets) if units is None else check_indices(units, "units")
        if len(units) != len(targets):
            raise ValueError(f"units must name one unit for each of {len(targets)} targets, got {len(units)}")

    generator = torch.Generator().manual_seed(random_state)

    def begin(batch: torch.Tensor, restart: int) -> priors.Pixels:
        if decoder is None:
            return PARAMETRIZATIONS[parametrization](len(batch), shape, generator=generator, device=encoder.device)
        start = decoder.guess(layer, batch)
        noise = torch.randn(start.shape, generator=generator).to(start.device)
        return priors.Latents(start + 0.5 * bool(restart) * noise, decoder, weight=latent_weight)

    settings = {
        "n_steps": n_steps,
        "learning_rate": learning_rate,
        "total_variation_weight": total_variation_weight,
        "affine": {"shift": jitter, "degrees": degrees, "zoom": zoom},
        "generator": generator,
    }
    parts = []
    n_batches = -(-len(targets) // batch_size)
    with progress_bar(show=progress, total=n_batches * n_restarts * n_steps, desc=f"reconstruct {layer}") as bar:
        for batch in torch.from_numpy(targets).split(batch_size):
            batch = batch.to(encoder.device)
            runs = [
                _search(lambda x: encoder(x)[layer], batch, scale, begin(batch, restart), bar=bar, **settings)
                for restart in range(n_restarts)
            ]
            parts.append(_best(runs))
    images, dead = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    losses = np.concatenate([part[1] for part in parts], 1)
    if dead.any():
        warnings.warn(
            f"{dead.sum()} of {len(dead)} targets, {np.flatnonzero(dead)[:10].tolist()} first, gave no gradient at any "
            "step, so their images mean nothing; more n_restarts, another start, or a layer that is not silent",
            DeadTargetWarning,
            stacklevel=2,
        )
    images = torch.from_numpy(images)
    found = capture(model, images, layers=layer, pool=pool, batch_size=batch_size, progress=False)
    return Reconstruction(
        images=images,
        codes=found[layer],
        targets=targets,
        loss=losses.mean(1),
        losses=losses,
        logits=found.logits,
        dead=dead,
        layer=layer,
        pool=pool,
        **({} if som is None else place_on_map(som, found[layer], units)),
    )


def _search(
    encode,
    targets: torch.Tensor,
    scale: torch.Tensor,
    prior: priors.Pixels,
    *,
    n_steps: int,
    learning_rate: float | None,
    total_variation_weight: float,
    affine: dict[str, float],
    generator: torch.Generator,
    bar,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One run of one batch: images (k, c, h, w), errors (n_steps + 1, k), and which targets never had a gradient."""
    rate = prior.learning_rate if learning_rate is None else learning_rate
    optimizer = torch.optim.Adam([prior.parameter], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps, eta_min=rate / 20)
    dead = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    errors = []
    for step in range(n_steps):
        images = prior.images()
        transformed = any(affine.values()) and step < TRANSFORMED_SHARE * n_steps
        seen = priors.random_affine(images, **affine, generator=generator) if transformed else images
        error = _squared_error(encode(seen) - targets, scale)
        (gradient,) = torch.autograd.grad(error.sum(), images)
        dead &= (gradient == 0).flatten(1).all(1)
        loss = (images * gradient).sum() + prior.penalty().sum()  # the code term's gradient, without a second pass
        if total_variation_weight:
            loss = loss + total_variation_weight * priors.total_variation(images).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        prior.project()
        errors.append(error.detach())
        bar.set_postfix(error=f"{errors[-1].mean().item():.3f}", refresh=False)
        bar.update()
    with torch.no_grad():
        images = prior.images().clamp(0, 1)
        errors.append(_squared_error(encode(images) - targets, scale))
    dead &= errors[-1] > 0  # a target met from the start needs no gradient
    return images.float().cpu().numpy(), torch.stack(errors).cpu().double().numpy(), dead.cpu().numpy()


def _squared_error(difference: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """|difference M|^2 of each row; M is a diagonal or a whole matrix."""
    return (difference * scale if scale.ndim == 1 else difference @ scale).pow(2).sum(1)


def _best(runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each target the run with the smallest last error; dead only if it was so in every run."""
    images, losses, dead = (np.stack(each) for each in zip(*runs, strict=True))
    best, each = losses[:, -1].argmin(0), np.arange(images.shape[1])
    return images[best, each], losses[best, :, each].T, dead.all(0)


def _normalizer(how: str, targets: np.ndarray, reference, decoder: Decoder | None, layer: str) -> torch.Tensor:
    """M, from real codes or what stands in for them: float32, its diagonal (n_units,), or whole (n_units, n_units)."""
    if how not in NORMALIZATIONS:
        raise ValueError(
            f"normalization must be one of {list(NORMALIZATIONS)}, got {how!r}{did_you_mean(how, NORMALIZATIONS)}"
        )
    n_units = targets.shape[1]
    codes = targets if reference is None else as_codes(reference, "reference")
    if codes.shape[1] != n_units:
        raise ValueError(f"reference must have {n_units} units, as the targets, got {codes.shape[1]}")
    if reference is None and decoder is not None and decoder.knows(layer, n_units) and how != "whiten":
        spread = decoder.spread(layer).cpu().numpy().astype(np.float64)
    elif len(codes) > 1:
        spread = codes.std(0, dtype=np.float64)
    else:  # nothing varies: measure relative to the code's length
        spread = np.full(n_units, np.linalg.norm(codes) / np.sqrt(n_units))
    total = max(float(np.sqrt((spread**2).sum())), 1e-12)
    if how == "total":
        matrix = np.full(n_units, 1 / total)
    elif how == "unit":
        matrix = 1 / np.maximum(spread, 1e-3 * total / np.sqrt(n_units)) / np.sqrt(n_units)
    else:
        covariance = np.cov(codes, rowvar=False).reshape(n_units, n_units) if len(codes) > 1 else np.diag(spread**2)
        variances, directions = np.linalg.eigh(covariance)
        floor = 1e-4 * total**2 / n_units
        matrix = directions / np.sqrt(np.maximum(variances, floor) * n_units)
    return torch.from_numpy(matrix.astype(np.float32))
