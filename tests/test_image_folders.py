"""image_folders: folders and torchvision's data sets, in the layouts in which readers have them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

import nfcodes_lib as nf
from nfcodes_lib.image_folders import PixelTransform, open_images


def picture(path, width=12, height=8, value=0):
    """A picture whose red is `value`, whose green grows to the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = value, np.arange(width) * 10
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["cat/a.png", "cat/b.png", "dog/c.png", "dog/notes.txt", "dog/d.PNG", "eel/e.png"]):
        if name.endswith("txt"):
            (tmp_path / "pets" / name).write_text("no picture")
        else:
            picture(tmp_path / "pets" / name, value=10 * i)
    return tmp_path / "pets"


KEEP = PixelTransform(None, None)


def test_folder_of_classes(folder):
    photos = open_images(folder, transform=KEEP)
    assert photos.class_names == ("cat", "dog", "eel")
    assert photos.labels.tolist() == [0, 0, 1, 1, 2]
    images, labels = photos.tensors()
    assert (images.shape, images.dtype) == ((5, 3, 8, 12), torch.float32)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 10, 20, 40, 50]
    assert labels.tolist() == photos.labels.tolist()
    assert photos.path(3).endswith("d.PNG")
    assert photos[-1][1] == 2
    with pytest.raises(IndexError, match=r"index must lie in \[0, 5\), got 5"):
        photos[5]


def test_images_alone_are_one_class(folder):
    photos = open_images(folder / "cat", transform=KEEP)
    assert len(photos) == 2
    assert photos.labels.tolist() == [0, 0]


def test_transform_is_that_of_torchvisions_weights(folder):
    from torchvision.transforms._presets import ImageClassification

    image = Image.open(folder / "dog" / "c.png")
    theirs = ImageClassification(crop_size=4, resize_size=6, mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.equal(PixelTransform(6, 4)(image), theirs(image))
    assert open_images(folder).tensors()[0].shape == (5, 3, 224, 224)


def test_sample_is_seeded_and_in_order(folder):
    first, again = (open_images(folder, n_samples=3, random_state=1) for _ in range(2))
    paths = [first.path(i) for i in range(3)]
    assert paths == sorted(paths) == [again.path(i) for i in range(3)]
    with pytest.raises(ValueError, match="n_samples must be between 1 and 5 here, got 6"):
        open_images(folder, n_samples=6)


def test_capture_reads_a_folder(folder, tiny_net):
    class Grey(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x[:, :1])

    codes = nf.capture(Grey(tiny_net), open_images(folder, transform=KEEP), layers="net.expand", batch_size=2)
    np.testing.assert_allclose(codes["net.expand"][:, 0] * 127.5, [0, 10, 20, 40, 50], rtol=1e-5)


@pytest.mark.parametrize("kind", ["cut off", "empty", "text"])
def test_a_damaged_image_is_named(folder, kind):
    path = folder / "dog" / "c.png"
    content = path.read_bytes()
    path.write_bytes({"cut off": content[: len(content) // 2], "empty": b"", "text": b"hello"}[kind])
    photos = open_images(folder, transform=KEEP)
    with pytest.raises(ValueError, match=r"expected an image in .*c\.png, got \w+Error: .*; mend or remove it"):
        photos[2]
    assert photos[1][0].shape == (3, 8, 12)


def test_an_image_too_large_to_be_true_is_refused(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match=r"expected an image in .*DecompressionBombError"):
        open_images(folder)[0]


def test_images_of_several_sizes_need_a_crop(folder):
    picture(folder / "eel" / "wide.png", width=30)
    with pytest.raises(ValueError, match=r"expected images of one size, got .*; give the transform a crop"):
        open_images(folder, transform=KEEP).tensors()


@pytest.mark.parametrize(("source", "root"), [("imagenette-160", "imagenette2-160"), ("imagenette", "imagenette2")])
def test_imagenette_as_its_archive_unpacks(tmp_path, source, root):
    for split, value in {"train": 100, "val": 200}.items():
        for wnid in ("n01440764", "n03888257"):
            folder = tmp_path / root / split / wnid
            picture(folder / "x.JPEG", value=value)
    photos = open_images(source, split="test", root=tmp_path, transform=KEEP)
    assert photos.class_names == ("tench", "parachute")
    assert photos.labels.tolist() == [0, 1]
    assert abs(float(photos[0][0][0].mean()) * 255 - 200) < 6, "JPEG rounds"
    assert photos.path(0).endswith("n01440764/x.JPEG")
    assert abs(float(open_images(source, split="train", root=tmp_path)[0][0][0].mean()) * 255 - 100) < 6


def test_cifar_as_its_archive_unpacks(tmp_path, monkeypatch):
    pixels = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    with open(folder / "test", "wb") as stream:
        pickle.dump({"data": pixels, "fine_labels": [1, 0]}, stream)
    with open(folder / "meta", "wb") as stream:
        pickle.dump({"fine_label_names": ["apple", "aquarium_fish"]}, stream)
    monkeypatch.setattr(datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *args: True)
    photos = open_images("cifar100", root=tmp_path)
    assert photos.class_names == ("apple", "aquarium_fish")
    images, labels = photos.tensors()
    np.testing.assert_array_equal((images * 255).round().byte().flatten(1).numpy(), pixels)
    assert labels.tolist() == [1, 0]
    assert photos.path(1) == "CIFAR100[1]"
    same, _ = nf.load_images("test", source="cifar100", root=tmp_path)
    assert torch.equal(same, images)


def test_missing_data_sets_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"nothing was downloaded: .*; pass download=True, or unpack imagenette2-320"
    ):
        open_images("imagenette-320", root=tmp_path)

    def refuse(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.imagenette, "download_and_extract_archive", refuse)
    with pytest.raises(
        FileNotFoundError, match=r"downloading it failed: no route to host; unpack imagenette2\.tgz to .*imagenette2"
    ):
        open_images("imagenette", root=tmp_path, download=True)
    with pytest.raises(FileNotFoundError, match=r"CIFAR10 below .*; pass download=True, or put its files below"):
        open_images("cifar10", root=tmp_path)


def test_bad_arguments(tmp_path, folder):
    with pytest.raises(
        FileNotFoundError, match=r"source must be one of .* got 'imagenete'; did you mean 'imagenette'\?"
    ):
        open_images("imagenete")
    with pytest.raises(ValueError, match=r"split must be one of .* got 'tset'; did you mean 'test'"):
        open_images("imagenette", split="tset")
    (tmp_path / "void").mkdir()
    with pytest.raises(
        ValueError, match=r"expected images .* in .*void or in its folders, one for each class, got none"
    ):
        open_images(tmp_path / "void")
    (folder / "fox").mkdir()
    with pytest.raises(ValueError, match=r"got none: .*fox.*; remove empty folders"):
        open_images(folder)
    with pytest.raises(ValueError, match=r"crop must be a whole number of at least 1, got 0"):
        PixelTransform(crop=0)
    with pytest.raises(ValueError, match=r"interpolation must be one of .* got 'cubic'"):
        PixelTransform(interpolation="cubic")
