"""Photographs for a network: folders of images and torchvision's data sets, read one at a time.

A network trained on ImageNet wants photographs of one size. :class:`PixelTransform` is how torchvision's weights ask
for them: the shorter side resized, the middle cut out, pixels in [0, 1]; what is then subtracted and divided belongs to
the network (see :mod:`nfcodes_lib.pretrained`). A :class:`Photographs` reads each file when it is asked for, so that
:func:`nfcodes_lib.capture` passes over a million images with one batch of them in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ._indices import check_count
from ._names import did_you_mean

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
SPLITS = ("train", "test")
# name -> (torchvision's class, what it is called with for a split, the transform without one given)
SOURCES = {
    "imagenette": ("Imagenette", lambda split: {"split": "train" if split == "train" else "val", "size": "full"}),
    "imagenette-320": ("Imagenette", lambda split: {"split": "train" if split == "train" else "val", "size": "320px"}),
    "imagenette-160": ("Imagenette", lambda split: {"split": "train" if split == "train" else "val", "size": "160px"}),
    "cifar10": ("CIFAR10", lambda split: {"train": split == "train"}),
    "cifar100": ("CIFAR100", lambda split: {"train": split == "train"}),
}


@dataclass(frozen=True)
class PixelTransform:
    """From a photograph to pixels: resize its shorter side, cut out the middle, scale to [0, 1].

    Attributes
    ----------
    resize : int or None
        Length of the shorter side afterwards; None leaves the size.
    crop : int or None
        Side of the square in the middle that is kept, padded with black where the image is smaller; None keeps all.
    interpolation : {"nearest", "bilinear", "bicubic"}
    """

    resize: int | None = 256
    crop: int | None = 224
    interpolation: str = "bilinear"

    def __post_init__(self):
        for name in ("resize", "crop"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {list(INTERPOLATIONS)}, got {self.interpolation!r}")

    def __call__(self, image) -> torch.Tensor:
        """Transform a PIL image, or a uint8 or float tensor (3, height, width); returns float32 (3, side, side)."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        if self.resize is not None:
            image = F.resize(image, [self.resize], interpolation=InterpolationMode(self.interpolation), antialias=True)
        if self.crop is not None:
            image = F.center_crop(image, [self.crop, self.crop])
        pixels = image if isinstance(image, torch.Tensor) else F.pil_to_tensor(image)
        return F.convert_image_dtype(pixels, torch.float32)


class Photographs(Dataset):
    """Images and labels, read from their files when asked for; made by :func:`open_images`.

    Attributes
    ----------
    class_names : tuple of str
    labels : ndarray, int64, shape (n,)
    """

    def __init__(self, dataset, indices: np.ndarray, transform: PixelTransform):
        self._dataset, self._indices, self.transform = dataset, indices, transform
        names = [name[0] if isinstance(name, tuple) else str(name) for name in dataset.classes]
        self.class_names = tuple(names)
        known = getattr(dataset, "targets", None)
        labels = [label for _, label in dataset._samples] if known is None else known
        self.labels = np.asarray(labels, np.int64)[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Pixels in [0, 1], float32 (3, height, width), and the label of one image."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), got {index}")
        chosen = int(self._indices[index])
        try:
            image, label = self._dataset[chosen]
            return self.transform(image.convert("RGB")), int(label)
        except Exception as error:  # of the many kinds of damage that PIL knows
            raise ValueError(
                f"expected an image in {self.path(index)}, got {type(error).__name__}: {error}; mend or remove it"
            ) from error

    def path(self, index: int) -> str:
        """File of one image; of a data set kept in one file, its number there."""
        samples = getattr(self._dataset, "samples", getattr(self._dataset, "_samples", None))
        chosen = int(self._indices[index])
        return f"{type(self._dataset).__name__}[{chosen}]" if samples is None else str(samples[chosen][0])

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All images and labels in memory, shapes (n, 3, height, width) and (n,), as ``nf.load_images`` gives them."""
        images = [self[index][0] for index in range(len(self))]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise ValueError(f"expected images of one size, got {sorted(shapes)[:3]}; give the transform a crop")
        return torch.stack(images), torch.from_numpy(self.labels.copy())


def open_images(
    source: str | Path,
    *,
    split: str = "test",
    transform: PixelTransform | None = None,
    n_samples: int | None = None,
    random_state: int = 0,
    root: str | Path = "~/.cache/nfcodes",
    download: bool = False,
) -> Photographs:
    """Open a folder of images, or one of torchvision's data sets.

    Parameters
    ----------
    source : str or path
        ``"imagenette"`` (ten easy classes of ImageNet; also ``"imagenette-320"`` and ``"imagenette-160"``, smaller
        copies), ``"cifar10"``, ``"cifar100"``; or the path of a folder: with one folder of images for each class, as
        ImageNet's validation images are usually kept, or with images alone, which are then one class.
    split : {"train", "test"}
        Not for folders.
    transform : PixelTransform, optional
        ``model.transform`` of a network from ``nf.load_model("resnet18", weights=…)``. None: shorter side 256, middle
        224 x 224; the images as they are for CIFAR.
    n_samples : int, optional
        Keep a random sample of this many, in the original order.
    random_state : int
        Seed of that sample.
    root : path
        Where torchvision keeps its files.
    download : bool
        Let torchvision download what is not yet below `root`.

    Returns
    -------
    Photographs
        For :func:`nfcodes_lib.capture`, or ``.tensors()``.

    Raises
    ------
    ValueError
        If `split` or `n_samples` is not as described, or a folder holds no images.
    FileNotFoundError
        If there is no such folder, or a data set is not below `root` and could not be downloaded.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {list(SPLITS)}, got {split!r}{did_you_mean(split, SPLITS)}")
    if source in SOURCES:
        dataset = _torchvision(source, split, Path(root).expanduser(), download)
        default = PixelTransform(None, None) if source.startswith("cifar") else PixelTransform()
    else:
        dataset, default = _folder(source), PixelTransform()
    indices = np.arange(len(dataset))
    if n_samples is not None:
        if check_count(n_samples, "n_samples") > len(indices):
            raise ValueError(f"n_samples must be between 1 and {len(indices):,} here, got {n_samples!r}")
        indices = np.sort(np.random.default_rng(random_state).choice(len(indices), n_samples, replace=False))
    return Photographs(dataset, indices, default if transform is None else transform)


def _torchvision(source: str, split: str, root: Path, download: bool):
    """One of torchvision's data sets, with an error that says what was tried and what to do."""
    from torchvision import datasets

    name, options = SOURCES[source]
    remedy = f"put its files below {root} as torchvision lays them out"
    if name == "Imagenette":
        folder = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}[options(split)["size"]]
        remedy = f"unpack {folder}.tgz to {root / folder}"
    try:
        return getattr(datasets, name)(root, download=download, **options(split))
    except (RuntimeError, OSError) as error:
        tried = "downloading it failed" if download else "nothing was downloaded"
        hint = remedy if download else f"pass download=True, or {remedy}"
        raise FileNotFoundError(f"expected {name} below {root}, but {tried}: {error}; {hint}") from error


def _folder(path: str | Path):
    """A folder as a data set: of class folders, or of images alone."""
    from torchvision import datasets

    class Flat(datasets.ImageFolder):
        def find_classes(self, directory):
            return ["."], {".": 0}

    folder = Path(path).expanduser()
    if not folder.is_dir():
        known = f"one of {list(SOURCES)}"
        raise FileNotFoundError(
            f"source must be {known} or a folder of images, got {str(path)!r}{did_you_mean(path, SOURCES)}"
        )
    has_folders = any(child.is_dir() for child in folder.iterdir())
    try:
        return (datasets.ImageFolder if has_folders else Flat)(str(folder))
    except FileNotFoundError as error:
        raise ValueError(
            f"expected images (.jpg, .png, …) in {folder} or in its folders, one for each class, got none: {error}; "
            "remove empty folders"
        ) from None
