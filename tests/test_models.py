import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nfcodes_lib as nf
from nfcodes_lib import _assets, models, train


def shipped():
    return [(name, seed) for name, seeds in nf.available_models().items() for seed in seeds]


def test_three_seeds_of_each_kind_of_network_ship():
    assert nf.available_models() == {name: (0, 1, 2) for name in ("resnet", "vgg", "resnet-robust")}


@pytest.mark.parametrize(("name", "seed"), shipped())
def test_shipped_network_is_what_its_record_says(name, seed):
    path = _assets.asset_path(models.weights_name(name, seed))
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == _assets.sha256(path)
    assert (record["model"], record["seed"]) == (name, seed)
    assert abs(record["test_accuracy"] - record["test_accuracy_before_rounding_to_half"]) < 0.002
    images, labels = nf.load_images("test", n_samples=2000)
    share = train.accuracy(nf.load_model(name, seed=seed), images, labels)
    error = np.sqrt(record["test_accuracy"] * (1 - record["test_accuracy"]) / 2000)
    assert abs(share - record["test_accuracy"]) < 4 * error


@pytest.mark.parametrize(("name", "floor"), [("resnet", 0.93), ("vgg", 0.915), ("resnet-robust", 0.80)])
def test_recorded_accuracy_meets_the_books_promise(name, floor):
    for seed in nf.available_models()[name]:
        record = _assets.ASSETS / models.weights_name(name, seed)
        assert json.loads(record.with_suffix(".json").read_text())["test_accuracy"] >= floor


def test_layers_and_shapes(resnet, images):
    assert not resnet.training
    assert sum(parameter.numel() for parameter in resnet.parameters()) == 308_538
    x = resnet.stem(resnet.normalise(images))
    shapes = []
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 28, 28), (32, 14, 14), (64, 7, 7), (128, 4, 4)]
    assert resnet(images).shape == (40, 10)


def test_untrained_network_depends_on_the_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, again, other = (nf.load_model("resnet", seed=seed, pretrained=False) for seed in (7, 7, 8))
    assert torch.equal(torch.rand(1), expected), "the global random state must stay as it was"
    assert torch.equal(first.layer4.conv1[0].weight, again.layer4.conv1[0].weight)
    assert not torch.equal(first.layer4.conv1[0].weight, other.layer4.conv1[0].weight)
    assert not torch.equal(first.head.weight, nf.load_model("resnet").head.weight)


def test_unknown_name_and_seed():
    with pytest.raises(ValueError, match=r"name must be one of .* got 'resent'; did you mean 'resnet'\?"):
        nf.load_model("resent")
    with pytest.raises(ValueError, match=r"seed must be one of \[0, 1, 2\] .* got 9; pretrained=False takes any seed"):
        nf.load_model("resnet", seed=9)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"head.weight": torch.zeros(10, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"expected the weights of SmallResNet in .*other\.safetensors"):
        models.load_weights(models.build_model("resnet", seed=0), tmp_path / "other.safetensors")


def test_pickles_are_never_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.save({"head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="pickled weights are never read"):
        models.load_weights(models.build_model("resnet", seed=0), path)
