"""pretrained: files as torch.hub leaves them serve torchvision's networks; without them, an error that helps."""

import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import models as tv

import nfcodes_lib as nf
from nfcodes_lib import pretrained
from nfcodes_lib.image_folders import PixelTransform


class Enum(dict):
    """Stands for torchvision's table of weights, with names of the tests' own files."""

    def __iter__(self):
        return iter(self.values())


class Weights:
    def __init__(self, name, url, original):
        self.name, self.url, self.meta, self.transforms = name, url, original.meta, original.transforms


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A function that puts a state dict below tmp_path, named with its checksum, for torchvision to ask for."""

    def serve(name, state, label="IMAGENET1K_V1", checksum=None):
        torch.save(state, tmp_path / "state")
        digest = checksum or hashlib.sha256((tmp_path / "state").read_bytes()).hexdigest()[:8]
        path = (tmp_path / "state").rename(tmp_path / f"{name}-{digest}.pth")
        original = tv.get_model_weights(name)[label]
        table = Enum({label: Weights(label, f"https://example.org/models/{path.name}?x=1", original)})
        table["DEFAULT"] = table[label]
        monkeypatch.setattr(tv, "get_model_weights", lambda asked: table)
        return path

    return serve


@pytest.fixture(scope="module")
def mobile():
    """A small network with random weights, and what it answers to normalised images."""
    torch.manual_seed(3)
    return tv.shufflenet_v2_x0_5(weights=None).eval()


@pytest.fixture
def photo():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_weights_are_read_and_pixels_normalised_inside(served, mobile, photo, tmp_path):
    served("shufflenet_v2_x0_5", mobile.state_dict())
    model = nf.load_model("shufflenet_v2_x0_5", weights="IMAGENET1K_V1", root=tmp_path, download=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = mobile((photo - mean[:, None, None]) / std[:, None, None])
        torch.testing.assert_close(model(photo), expected)
    assert not model.training
    assert model.transform == PixelTransform(256, 224, "bilinear")
    assert len(model.class_names) == 1000
    assert model.class_names[0] == "tench"
    codes = nf.capture(model, photo, layers="auto", batch_size=1)
    assert codes.layers == ("stage2", "stage3", "stage4")
    np.testing.assert_allclose(codes.logits, expected, rtol=1e-4, atol=1e-5)


def test_names_of_older_weights_are_understood(served, tmp_path):
    """DenseNet's published file calls denselayer1.norm1 denselayer1.norm.1."""
    torch.manual_seed(0)
    state = tv.densenet121(weights=None).state_dict()
    old = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for name, value in state.items()}
    assert old.keys() != state.keys()
    served("densenet121", old)
    model = nf.load_model("densenet121", weights="DEFAULT", root=tmp_path, download=False)
    name = "features.denseblock2.denselayer3.norm1.weight"
    assert torch.equal(model.state_dict()[name], state[name])


def test_untrained_network_depends_on_the_seed_alone(photo):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, again, other = (nf.load_model("shufflenet_v2_x0_5", pretrained=False, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    with torch.no_grad():
        assert torch.equal(first(photo), again(photo))
        assert not torch.equal(first(photo), other(photo))
    assert first.transform.crop == 224


def test_missing_weights_say_what_was_tried_and_where_they_go(tmp_path, monkeypatch):
    asked = []

    def refuse(url, path, hash_prefix):
        asked.append(url)
        raise URLError("no route to host")

    monkeypatch.setattr(pretrained.torch.hub, "download_url_to_file", refuse)
    arguments = {"weights": "IMAGENET1K_V1", "root": tmp_path / "new"}
    expected = r"found no file, and downloading (https://\S*resnet18-f37072fd\.pth) failed: .*no route to host.*"
    with pytest.raises(FileNotFoundError, match=expected + r"; fetch \1 on a machine with a network and put it at"):
        nf.load_model("resnet18", **arguments)
    assert len(asked) == 1
    with pytest.raises(FileNotFoundError, match=r"at .*resnet18-f37072fd\.pth, found no file; pass download=True, or"):
        nf.load_model("resnet18", download=False, **arguments)
    assert len(asked) == 1


def test_the_default_folder_is_that_of_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained.torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"expected the weights at {tmp_path}/checkpoints/resnet18-"):
        nf.load_model("resnet18", weights="IMAGENET1K_V1", download=False)


def test_download_is_kept_and_used_again(served, mobile, tmp_path, monkeypatch):
    path = served("shufflenet_v2_x0_5", mobile.state_dict())
    content = path.read_bytes()
    path.unlink()
    asked = []

    def fetch(url, target, hash_prefix):
        asked.append((url, hash_prefix))
        with open(target, "wb") as stream:
            stream.write(content)

    monkeypatch.setattr(pretrained.torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        nf.load_model("shufflenet_v2_x0_5", weights="IMAGENET1K_V1", root=tmp_path)
    assert asked == [(f"https://example.org/models/{path.name}?x=1", path.stem[-8:])]


def test_altered_weights_are_refused(served, mobile, tmp_path):
    path = served("shufflenet_v2_x0_5", mobile.state_dict())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"expected a SHA-256 that begins with .* \(truncated or altered\?\); remove it"
    ):
        nf.load_model("shufflenet_v2_x0_5", weights="IMAGENET1K_V1", root=tmp_path, download=False)


class Harm:
    def __reduce__(self):
        return open, ("harm-was-done", "w")


@pytest.mark.parametrize("state", [{"conv1.weight": torch.zeros(1)}, [1, 2], {"conv1.weight": Harm()}])
def test_files_that_hold_something_else_are_refused(served, tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    served("shufflenet_v2_x0_5", state)
    with pytest.raises(ValueError, match=r"expected the weights of shufflenet_v2_x0_5 in .*; fetch the file again"):
        nf.load_model("shufflenet_v2_x0_5", weights="IMAGENET1K_V1", root=tmp_path, download=False)
    assert not (tmp_path / "harm-was-done").exists()


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match=r"or a classifier of torchvision .* got 'resnet19'; did you mean 'resnet18'\?"
    ):
        nf.load_model("resnet19")
    with pytest.raises(
        ValueError, match=r"weights must be one of \['IMAGENET1K_V1', 'DEFAULT'\] for 'resnet18', got None"
    ):
        nf.load_model("resnet18")
    with pytest.raises(ValueError, match=r"got 'IMAGENET1K_V2'; did you mean 'IMAGENET1K_V1'\?"):
        nf.load_model("resnet18", weights="IMAGENET1K_V2")
    with pytest.raises(ValueError, match="weights must be None for the book's own 'resnet', got 'DEFAULT'"):
        nf.load_model("resnet", weights="DEFAULT")


def test_every_classifier_has_a_checksum_and_a_size():
    """Nothing is built: only what load_torchvision reads of each of torchvision's weights."""
    names = pretrained.torchvision_names()
    assert len(names) > 70
    for name in names:
        for weights in tv.get_model_weights(name):
            classes = weights.meta.get("categories")
            assert pretrained.CHECKSUM.search(weights.url), weights
            asked = weights.transforms()
            PixelTransform(asked.resize_size[0], asked.crop_size[0], interpolation=asked.interpolation.value)
            assert pretrained._options(name, weights).get("num_classes", 1000) == len(classes or range(1000))
