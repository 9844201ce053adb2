import gzip
import struct

import numpy as np
import pytest
import torch

import nfcodes_lib as nf
from nfcodes_lib import _assets, data, embed


@pytest.fixture(scope="module")
def pair():
    """A tiny data set in the layout of the originals: 30 training and 6 test images of 28 x 28."""
    rng = np.random.default_rng(0)
    return {
        split: (rng.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 3)
        for split, n in (("train", 30), ("test", 6))
    }


def write_originals(folder, pair):
    folder.mkdir(parents=True)
    for split, arrays in pair.items():
        for name, array in zip(data.idx_names(split), arrays, strict=True):
            data.write_idx(folder / name.rpartition("/")[2], array)
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_split(split):
    images, labels = nf.load_images(split)
    assert images.shape == (10_000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert float(images.min()) == 0
    assert float(images.max()) == 1
    assert torch.bincount(labels).tolist() == [1000] * 10


def test_sample_is_reproducible_and_labelled():
    images, labels = nf.load_images("test", n_samples=50, random_state=3)
    again, _ = nf.load_images("test", n_samples=50, random_state=3)
    other, _ = nf.load_images("test", n_samples=50, random_state=4)
    everything, all_labels = nf.load_images("test")
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    position = int((everything == images[0]).flatten(1).all(1).nonzero()[0, 0])
    assert all_labels[position] == labels[0]


def test_splits_share_no_image():
    train, test = (nf.load_images(split)[0].flatten(1) for split in ("train", "test"))
    rows = {image.numpy().tobytes() for image in train}
    shared = sum(image.numpy().tobytes() in rows for image in test)
    assert shared <= 2  # Fashion-MNIST repeats a few photographs; the cut adds none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tets"}, "split must be one of .* got 'tets'; did you mean 'test'"),
        ({"source": "fashon_mnist"}, "source must be one of .* did you mean 'fashion_mnist'"),
        ({"n_samples": 0}, "n_samples must be between 1 and 10,000 .* got 0"),
        ({"n_samples": 10_001}, "n_samples must be between 1 and 10,000 .* got 10001"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        nf.load_images(**arguments)


def test_debian_files_serve_the_full_set(tmp_path, pair, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", write_originals(tmp_path / "debian", pair))
    images, labels = nf.load_images("train", source="fashion_mnist")
    assert images.shape == (30, 1, 28, 28)
    np.testing.assert_array_equal((images[:, 0] * 255).round().byte().numpy(), pair["train"][0])
    np.testing.assert_array_equal(labels.numpy(), pair["train"][1])


def test_torchvision_layout_serves_the_full_set(tmp_path, pair, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "nothing")
    raw = tmp_path / "FashionMNIST" / "raw"
    write_originals(raw, pair)
    for file in raw.glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    images, labels = nf.load_images("test", source="fashion_mnist", root=tmp_path)
    np.testing.assert_array_equal((images[:, 0] * 255).round().byte().numpy(), pair["test"][0])
    np.testing.assert_array_equal(labels.numpy(), pair["test"][1])


def test_missing_torchvision_files_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"expected FashionMNIST below .* pass download=True, or put its files"):
        nf.load_images("test", source="fashion_mnist", root=tmp_path)


def test_failed_download_names_the_remedy(tmp_path, monkeypatch):
    from torchvision import datasets

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", refuse)
    with pytest.raises(FileNotFoundError, match=r"could not download CIFAR10 .* no route to host; put its files"):
        nf.load_images("test", source="cifar10", root=tmp_path, download=True)


def test_colour_images_come_channels_first(tmp_path, monkeypatch):
    from torchvision import datasets

    class Colour:
        data = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
        targets = (1, 0)

    monkeypatch.setattr(datasets, "CIFAR10", lambda *args, **kwargs: Colour)
    images, labels = nf.load_images("test", source="cifar10", root=tmp_path)
    assert images.shape == (2, 3, 4, 4)
    assert (images[0, :, 0, 0] * 255).round().tolist() == [0, 1, 2]
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 4, 5)])
def test_idx_round_trip(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    data.write_idx(tmp_path / "a.gz", array)
    data.write_idx(tmp_path / "b.gz", array)
    np.testing.assert_array_equal(data.read_idx(tmp_path / "a.gz"), array)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "complete gzip file"),
        (gzip.compress(b"\x00\x00\x08\x01" + struct.pack(">I", 3) + b"abc")[:-9], "complete gzip file"),
        (gzip.compress(b"\x00\x00\x0d\x01" + struct.pack(">I", 1) + b"abcd"), "idx file of unsigned bytes"),
        (gzip.compress(b"\x00"), "idx file of unsigned bytes"),
        (gzip.compress(b"\x00\x00\x08\x01" + struct.pack(">I", 3) + bytes(10**7)), "got more than 3"),
        (gzip.compress(b"\x00\x00\x08\x02" + struct.pack(">2I", 2**32 - 1, 2**32 - 1) + b"abcd"), "got 4"),
        (gzip.compress(b"\x00\x00\x08\x03\x00"), "bytes after the header"),
        (gzip.compress(b"\x00\x00\x08\x01" + struct.pack(">I", 4) + b"abc"), r"expected \(4,\) bytes"),
        (gzip.compress(b"\x00\x00\x08\x01" + struct.pack(">I", 2) + b"abc"), r"expected \(2,\) bytes"),
    ],
    ids=["no gzip", "cut off", "floats", "no header", "bomb", "boast", "short header", "too short", "too long"],
)
def test_damaged_idx_is_named(tmp_path, content, message):
    path = tmp_path / "damaged.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path)
    assert "damaged.gz" in str(caught.value)


def test_split_indices_are_disjoint_and_seeded():
    a, b = nf.split_indices(100, fractions=(0.6, 0.3), random_state=1)
    assert (len(a), len(b)) == (60, 30)
    assert not set(a) & set(b)
    np.testing.assert_array_equal(a, nf.split_indices(100, fractions=(0.6, 0.3), random_state=1)[0])
    assert set(a) != set(nf.split_indices(100, fractions=(0.6, 0.3), random_state=2)[0])


@pytest.mark.parametrize("fractions", [(0.7, 0.7), (1.0, 0.0), (-0.5, 0.5)])
def test_split_refuses_bad_fractions(fractions):
    with pytest.raises(ValueError, match="fractions must be positive"):
        nf.split_indices(10, fractions=fractions)


def test_split_refuses_empty_parts():
    with pytest.raises(ValueError, match="leaves one empty"):
        nf.split_indices(3, fractions=(0.9, 0.1))


def test_embed_cuts_the_first_of_each_class(tmp_path, pair, monkeypatch):
    monkeypatch.setattr(embed, "N_PER_CLASS", 4)
    originals = write_originals(tmp_path / "originals", pair)
    embed.embed(originals, tmp_path / "assets")
    images, labels = (data.read_idx(tmp_path / "assets" / name) for name in data.idx_names("train"))
    np.testing.assert_array_equal(images, pair["train"][0][:12])  # classes take turns: the first four of each
    assert np.bincount(labels).tolist() == [4, 4, 4]
    for name in data.idx_names("test"):
        assert (tmp_path / "assets" / name).read_bytes() == (originals / name.rpartition("/")[2]).read_bytes()
    assert set(_assets.manifest(tmp_path / "assets")) == {n for s in data.SPLITS for n in data.idx_names(s)}


def test_embed_names_missing_originals(tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        embed.embed(tmp_path, tmp_path / "assets")


@pytest.mark.skipif(not data.DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_embedded_images_are_those_of_the_originals():
    full, full_labels = (data.read_idx(data.DEBIAN_FOLDER / n.rpartition("/")[2]) for n in data.idx_names("train"))
    kept = embed.first_of_each_class(full_labels, embed.N_PER_CLASS)
    images, labels = (data.read_idx(_assets.asset_path(name)) for name in data.idx_names("train"))
    np.testing.assert_array_equal(images, full[kept])
    np.testing.assert_array_equal(labels, full_labels[kept])
