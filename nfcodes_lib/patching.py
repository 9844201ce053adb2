"""Which layer carries a perturbation? Put part of the clean activation back, and see whether the answer returns.

Correlation along a path does not say what causes the new answer. Activation patching does (Vig et al. 2020,
arXiv:2004.12265, call it causal mediation analysis): run the network on image x, but at one layer replace some feature
maps by those that it computes for a donor image x0,

    a_c <- m_c a_c(x0) + (1 - m_c) a_c(x),    m_c in {0, 1},

and let the rest of the network go on from there. With an attacked x and its clean twin as donor, the share of restored
answers tells how much of the attack flows through the replaced maps. At a layer that everything passes through,
replacing all maps restores the clean answer by construction, for what follows sees nothing else; only parts say
something, and only beside a donor that is not the twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ._indices import check_count
from ._progress import progress_bar
from .hooks import evaluating, layer_outputs, resolve_layers, tap
from .traces import bootstrap_interval


@dataclass(frozen=True, eq=False)
class PatchResult:
    """How often patched runs gave the asked answer.

    Attributes
    ----------
    layers : tuple of str
    fractions : ndarray of float64, shape (n_fractions,)
        Share of a layer's feature maps that were replaced.
    share : ndarray of float64, shape (n_layers, n_fractions)
        Share of runs that gave the asked answer, over images and draws of feature maps.
    low, high : ndarray of float64, shape (n_layers, n_fractions)
        Bootstrap interval over images, 95 %; network and draws are held fixed.
    unpatched : float
        Share of images that give the asked answer without a patch.
    per_image : ndarray of float64, shape (n_layers, n_fractions, n)
        Share over the draws.
    """

    layers: tuple[str, ...]
    fractions: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unpatched: float
    per_image: np.ndarray = field(repr=False)


def patch_test(
    model: nn.Module,
    images: torch.Tensor,
    donors: torch.Tensor,
    answers,
    *,
    layers: str | list[str] | tuple[str, ...],
    fractions=(0.25, 0.5, 0.75, 1.0),
    n_draws: int = 5,
    batch_size: int = 128,
    random_state: int = 0,
    progress: bool | None = None,
) -> PatchResult:
    """Replace a random part of each layer's feature maps by a donor's and count how often an answer is given.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits; it is run in eval mode and left as it is.
    images, donors : torch.Tensor, float, shape (n, channels, height, width)
        Images to run, and for each the image whose activation is put in: attacked images and their clean twins ask what
        restores the answer; clean images and their attacked twins, what breaks it; twins of other images are the
        control.
    answers : array-like of int, shape (n,)
        The class to count, for each image.
    layers : str or list of str
        As in :func:`nfcodes_lib.capture`, but "auto". One at a time is patched; of a sequence of tokens, units.
    fractions : sequence of float
        Shares of the feature maps to replace, in (0, 1]; at least one map is replaced.
    n_draws : int
        Random subsets per fraction; the same ones for all images. The subsets of one draw are nested, so that a larger
        fraction replaces more of the same.
    batch_size : int
    random_state : int
    progress : bool, optional

    Returns
    -------
    PatchResult

    Raises
    ------
    ValueError
        If a layer is unknown, or images, donors and answers do not match.

    Examples
    --------
    >>> import nfcodes_lib as nf
    >>> model = nf.load_model("resnet")
    >>> images, _ = nf.load_images("test", n_samples=8)
    >>> donors = images.flip(0)
    >>> theirs = nf.capture(model, donors, layers="layer4").predictions
    >>> result = patch_test(model, images, donors, theirs, layers=["layer1", "layer4"], fractions=[0.5, 1.0])
    >>> result.share[:, -1]      # all maps replaced: the donor's answer
    array([1., 1.])
    """
    layers = resolve_layers(model, layers)
    fractions = np.atleast_1d(np.asarray(fractions, dtype=np.float64))
    if fractions.ndim != 1 or not ((fractions > 0) & (fractions <= 1)).all():
        raise ValueError(f"fractions must lie in (0, 1], got {fractions.tolist()}")
    n_draws = check_count(n_draws, "n_draws")
    answers = torch.as_tensor(np.asarray(answers))
    if images.shape != donors.shape or answers.shape != (len(images),) or not len(images):
        raise ValueError(
            "images, donors and answers must describe the same one or more images, got shapes "
            f"{tuple(images.shape)}, {tuple(donors.shape)} and {tuple(answers.shape)}"
        )
    device = next((parameter.device for parameter in model.parameters()), images.device)
    given = np.zeros((len(layers), len(fractions), len(images)))
    unpatched = 0
    with evaluating(model), torch.inference_mode():
        for start in progress_bar(range(0, len(images), batch_size), show=progress, desc="patch", unit="batch"):
            here = slice(start, start + batch_size)
            batch, asked = images[here].to(device, torch.float32), answers[here].to(device)
            with tap(model, layers, torch.clone) as clean:
                model(donors[here].to(device, torch.float32))
            unpatched += int((model(batch).argmax(1) == asked).sum())
            for i, layer in enumerate(layers):
                rng = np.random.default_rng([random_state, i])
                for _ in range(n_draws):
                    order = rng.permutation(clean[layer].shape[_map_axis(clean[layer])])
                    for j, fraction in enumerate(fractions):
                        chosen = torch.from_numpy(order[: max(1, round(fraction * len(order)))]).to(device)
                        with patched(model, layer, clean[layer], chosen):
                            hits = model(batch).argmax(1) == asked
                        given[i, j, here] += hits.cpu().numpy() / n_draws
    low, high = bootstrap_interval(given, random_state=random_state)
    return PatchResult(layers, fractions, given.mean(2), low, high, unpatched / len(images), given)


@contextmanager
def patched(model: nn.Module, layer: str, donor: torch.Tensor, maps: torch.Tensor) -> Iterator[nn.Module]:
    """Context manager: while it lasts, some feature maps of `layer` are those of `donor`.

    Parameters
    ----------
    model : torch.nn.Module
    layer : str
    donor : torch.Tensor
        Activation of `layer` for the donor images, as :func:`nfcodes_lib.capture.tap` finds it; one for each image that
        the model is given in the block.
    maps : torch.Tensor, int64
        Indices of feature maps: along the second axis, or of tokens (n, tokens, units) along the third.

    Raises
    ------
    ValueError
        If the layer is unknown; from the forward pass, if the donor's activation has another shape.
    """

    model_inside, outputs = layer_outputs(model, layer)
    ((_, found),) = outputs.items()

    def replace(module, inputs, output):
        activation = found.activation(output)
        if activation.shape != donor.shape:
            raise ValueError(
                f"the donor's activation must have shape {tuple(activation.shape)}, got {tuple(donor.shape)}"
            )
        axis = _map_axis(activation)
        return found.put_back(output, activation.index_copy(axis, maps, donor.index_select(axis, maps)))

    handle = model_inside.get_submodule(found.module).register_forward_hook(replace)
    try:
        yield model
    finally:
        handle.remove()


def _map_axis(activation: torch.Tensor) -> int:
    """Axis of the feature maps; of tokens, that of the units."""
    return 2 if activation.ndim == 3 else 1
