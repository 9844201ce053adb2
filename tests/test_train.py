import json

import pytest
import torch

import nfcodes_lib as nf
from nfcodes_lib import _assets, models, train

TINY = train.Recipe(epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def some_images():
    return nf.load_images("train", n_samples=640)


def test_training_learns_and_repeats(some_images):
    images, labels = some_images
    first, again = (train.train("resnet", images, labels, seed=5, recipe=TINY, progress=False) for _ in range(2))
    untrained = nf.load_model("resnet", seed=5, pretrained=False)
    assert not first.training
    assert torch.equal(first.head.weight, again.head.weight)
    assert train.accuracy(first, images, labels) > train.accuracy(untrained, images, labels) + 0.2


def test_pgd_examples_stay_in_the_ball_and_hurt(resnet, some_images):
    images, labels = some_images[0][:100], some_images[1][:100]
    generator = torch.Generator().manual_seed(0)
    attacked = train.pgd_examples(resnet, images, labels, epsilon=0.03, steps=4, generator=generator)
    assert float((attacked - images).abs().max()) <= 0.03 + 1e-6
    assert float(attacked.min()) >= 0
    assert float(attacked.max()) <= 1
    assert train.accuracy(resnet, attacked, labels) < train.accuracy(resnet, images, labels) - 0.3


def test_augmentation_shifts_and_flips_by_known_amounts():
    image = torch.zeros(200, 1, 6, 6)
    image[:, :, 2, 1] = 1
    moved = train.augment(image, shift=1, generator=torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    assert moved.sum((1, 2, 3)).eq(1).all(), "a pixel this far inside is never shifted out"
    rows, columns = moved.flatten(1).argmax(1) // 6, moved.flatten(1).argmax(1) % 6
    assert set(rows.tolist()) == {1, 2, 3}
    assert set(columns.tolist()) == {0, 1, 2, 3, 4, 5}  # 1 or its mirror image 4, one to either side


def test_ship_writes_weights_record_and_manifest(tmp_path, resnet):
    record = train.ship(resnet, "resnet", seed=0, record={"model": "resnet", "seed": 0}, root=tmp_path)
    path = tmp_path / "weights" / "resnet-seed0.safetensors"
    assert json.loads(path.with_suffix(".json").read_text()) == record
    assert _assets.check_asset("weights/resnet-seed0.safetensors", tmp_path) == path
    shipped = _assets.asset_path(models.weights_name("resnet", 0)).with_suffix(".json")
    assert record["test_accuracy"] == pytest.approx(json.loads(shipped.read_text())["test_accuracy"], abs=5e-4)


def test_command_line_trains_on_a_data_set(tmp_path, monkeypatch, some_images):
    monkeypatch.setattr(train.data, "load_images", lambda *args, **kwargs: some_images)
    train.main(["resnet", "--seed", "11", "--epochs", "1", "--root", str(tmp_path)])
    record = json.loads((tmp_path / "weights" / "resnet-seed11.json").read_text())
    assert record["recipe"]["epochs"] == 1
    assert record["n_training_images"] == 640
    assert record["test_accuracy"] > 0.1
