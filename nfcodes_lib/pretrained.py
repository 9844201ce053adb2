"""torchvision's classifiers with their published weights, as the rest of the library wants a network.

That is: in eval mode, for images in [0, 1], with the weights' own normalisation inside, and with logits out. What the
weights ask of an image before that (its size, mostly) is the network's `transform`, which
:func:`nfcodes_lib.image_folders.open_images` takes. Weights are files that the reader downloads, so each is compared
with the checksum in its name and read without unpickling code.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from ._assets import sha256
from ._names import did_you_mean
from .image_folders import PixelTransform
from .normalise import Normalise

CHECKSUM = re.compile(r"-([0-9a-f]{8,})\.")  # torch.hub's convention: the first digits of the file's SHA-256
OLD_NAMES = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")  # DenseNet's weights are older than its code
AUXILIARY = ("googlenet", "inception_v3")  # whose weights were trained with further heads


def torchvision_names() -> list[str]:
    """Names of torchvision's classifiers, as :func:`nfcodes_lib.load_model` takes them."""
    from torchvision import models

    return models.list_models(module=models)


def load_torchvision(
    name: str,
    *,
    weights: str | None = None,
    pretrained: bool = True,
    seed: int = 0,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
    download: bool = True,
) -> nn.Module:
    """Load one of torchvision's classifiers; :func:`nfcodes_lib.load_model` calls this for their names.

    Parameters
    ----------
    name : str
        One of :func:`torchvision_names`, such as ``"resnet18"``.
    weights : str
        One of those that torchvision lists for `name`, such as ``"IMAGENET1K_V1"``, or ``"DEFAULT"`` for its best.
    pretrained : bool
        False gives the network untrained, initialised from `seed`, with the normalisation of `weights` (by default of
        the best): the control.
    device : str or torch.device
    root : path, optional
        Folder of the file of weights; torch.hub's ``checkpoints`` if None.
    download : bool
        Fetch the file if it is not there.

    Returns
    -------
    torch.nn.Module
        Takes floats in [0, 1], shape (n, 3, height, width); its modules have torchvision's names, with `normalise` as
        one more. ``model.transform`` is the :class:`~nfcodes_lib.image_folders.PixelTransform` that the weights ask
        for, ``model.class_names`` the names of its classes.

    Raises
    ------
    ValueError
        If `name` or `weights` is unknown, or the file is not what its name says.
    FileNotFoundError
        If the file is not there and could not be downloaded; the message says what was tried and where to put it.
    """
    from torchvision import models

    known = list(models.get_model_weights(name))
    names = [each.name for each in known]
    if weights is None and pretrained:
        raise ValueError(
            f"weights must be one of {[*names, 'DEFAULT']} for {name!r}, got None; pretrained=False takes none"
        )
    if weights is not None and weights not in (*names, "DEFAULT"):
        raise ValueError(
            f"weights must be one of {[*names, 'DEFAULT']} for {name!r}, got {weights!r}{did_you_mean(weights, names)}"
        )
    chosen = models.get_model_weights(name)[weights or "DEFAULT"]
    path = weights_file(chosen, root=root, download=download) if pretrained else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.get_model(name, weights=None, **_options(name, chosen))
    if path is not None:
        _load(model, path, name)
    asked = chosen.transforms()
    model.normalise = Normalise(tuple(asked.mean), tuple(asked.std))
    model.register_forward_pre_hook(_normalise_input)
    interpolation = asked.interpolation.value
    model.transform = PixelTransform(asked.resize_size[0], asked.crop_size[0], interpolation=interpolation)
    model.class_names = tuple(chosen.meta.get("categories") or ())
    return model.eval().to(device)


def weights_file(weights, *, root: str | Path | None = None, download: bool = True) -> Path:
    """Path of the file of torchvision's `weights`, fetched if it is missing, its checksum compared.

    Raises
    ------
    FileNotFoundError
        If it is missing and `download` is False or fails.
    ValueError
        If its SHA-256 does not begin as its name says.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" if root is None else Path(root).expanduser()
    path = folder / os.path.basename(urlparse(weights.url).path)
    wanted = CHECKSUM.search(path.name).group(1)
    remedy = f"fetch {weights.url} on a machine with a network and put it at {path}"
    if not path.is_file():
        if not download:
            raise FileNotFoundError(f"expected the weights at {path}, found no file; pass download=True, or {remedy}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=wanted)
        except (OSError, RuntimeError) as error:  # RuntimeError: another checksum
            raise FileNotFoundError(
                f"expected the weights at {path}, found no file, and downloading {weights.url} failed: {error}; "
                f"{remedy}"
            ) from error
    found = sha256(path)
    if not found.startswith(wanted):
        raise ValueError(
            f"expected a SHA-256 that begins with {wanted} for {path}, got {found[: len(wanted)]}… "
            f"(truncated or altered?); remove it, then {remedy}"
        )
    return path


def _load(model: nn.Module, path: Path, name: str) -> None:
    """Copy a state dict into the model, reading tensors only."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict({OLD_NAMES.sub(r"\1\2.", key): value for key, value in state.items()})
    except Exception as error:  # a damaged file can make the unpickler raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"expected the weights of {name} in {path}, got {reason}; fetch the file again") from None


def _options(name: str, weights) -> dict[str, object]:
    """What torchvision passes to the network's builder for these weights."""
    options: dict[str, object] = {}
    if weights.meta.get("categories"):
        options["num_classes"] = len(weights.meta["categories"])
    if name in AUXILIARY:
        options |= {"aux_logits": True, "transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        options["image_size"] = weights.meta["min_size"][0]
    if name.startswith("maxvit"):
        options["input_size"] = weights.meta["min_size"]
    return options


def _normalise_input(module: nn.Module, inputs: tuple) -> tuple:
    return (module.normalise(inputs[0]), *inputs[1:])
