"""Fourteen photographs that come with scikit-image and scikit-learn: something to look at where no network is.

They are files inside the two packages, free to use (public domain or CC0; the last two CC BY 2.0, whose photographers
are named in ``PHOTOGRAPHS``). Too few to train or to judge a classifier on; but a position of a feature map is a sample
too, and of these there are tens of thousands.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from ._names import did_you_mean
from .image_folders import PixelTransform

# name -> (package, file, who made it)
PHOTOGRAPHS = {
    "cat": ("skimage", "data/chelsea.png", "Stefan van der Walt, CC0"),
    "coffee": ("skimage", "data/coffee.png", "Rachel Michetti, CC0"),
    "astronaut": ("skimage", "data/astronaut.png", "NASA, public domain"),
    "cameraman": ("skimage", "data/camera.png", "Lav Varshney, CC0"),
    "rocket": ("skimage", "data/rocket.jpg", "SpaceX, public domain"),
    "coins": ("skimage", "data/coins.png", "Brooklyn Museum, no known restrictions"),
    "clock": ("skimage", "data/clock_motion.png", "Stefan van der Walt, public domain"),
    "retina": ("skimage", "data/retina.jpg", "Mikael Häggström, CC0"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg", "NASA, public domain"),
    "brick": ("skimage", "data/brick.png", "CC0Textures, CC0"),
    "grass": ("skimage", "data/grass.png", "CC0Textures, CC0"),
    "gravel": ("skimage", "data/gravel.png", "CC0Textures, CC0"),
    "palace": ("sklearn", "datasets/images/china.jpg", "danielbuechele, CC BY 2.0"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "vultilion, CC BY 2.0"),
}
PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
CROPS = ("whole", "quarters")


def load_photographs(crop: str = "whole", *, size: int = 160, names=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Load the photographs as square images.

    Parameters
    ----------
    crop : {"whole", "quarters"}
        The square in the middle of each photograph; or the four quarters of that square at twice the scale, from left
        to right and from top to bottom. Quarters do not overlap.
    size : int
        Side of the images, in pixels.
    names : sequence of str, optional
        Which ones; all of ``PHOTOGRAPHS`` if None.

    Returns
    -------
    images : torch.Tensor, float32, shape (n, 3, size, size)
        In [0, 1]; grey photographs have three equal channels.
    labels : torch.Tensor, int64, shape (n,)
        Which photograph, as index into `names`.

    Raises
    ------
    ValueError
        If `crop` or a name is unknown.
    FileNotFoundError
        If a package, or a photograph in it, is not installed.

    Examples
    --------
    >>> images, labels = load_photographs("quarters", size=64, names=["cat", "coffee"])
    >>> images.shape, labels
    (torch.Size([8, 3, 64, 64]), tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    """
    from PIL import Image

    if crop not in CROPS:
        raise ValueError(f"crop must be one of {list(CROPS)}, got {crop!r}{did_you_mean(crop, CROPS)}")
    names = tuple(PHOTOGRAPHS) if names is None else tuple(names)
    side = size if crop == "whole" else 2 * size
    transform = PixelTransform(side, side, interpolation="bicubic")
    images = []
    for name in names:
        with Image.open(_file(name)) as photograph:
            images.append(transform(photograph.convert("RGB")))
    images = torch.stack(images)
    if crop == "quarters":
        images = images.unflatten(3, (2, size)).unflatten(2, (2, size)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return images, torch.arange(len(names)).repeat_interleave(len(images) // len(names))


def _file(name: str) -> Path:
    """Path of a photograph, without importing the package that holds it."""
    if name not in PHOTOGRAPHS:
        hint = did_you_mean(name, PHOTOGRAPHS)
        raise ValueError(f"a photograph must be one of {list(PHOTOGRAPHS)}, got {name!r}{hint}")
    package, file, _ = PHOTOGRAPHS[name]
    found = find_spec(package)
    path = None if found is None else Path(found.origin).parent / file
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"expected the photograph {name!r} in the package {PACKAGES[package]}, found none; "
            f"pip install {PACKAGES[package]}"
        )
    return path
