"""The report: numbers that are those of the measures themselves, and a page that stands on its own."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import nfcodes_lib as nf
from nfcodes_lib.image_folders import PixelTransform
from nfcodes_lib.report import report
from nfcodes_lib.untrained import untrained_copy

QUICK = {"n_permutations": 30, "progress": False}
LAYERS = ["layer1", "layer4"]


@pytest.fixture(scope="module")
def data():
    return nf.load_images("test", n_samples=500)


@pytest.fixture(scope="module")
def found(data, resnet):
    images, labels = data
    return report(resnet, images, labels=labels, layers=LAYERS, class_names=nf.CLASS_NAMES, **QUICK)


class Page(HTMLParser):
    """Collects tags with their attributes, and notes elements that are never closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_measures_are_those_of_the_library_on_images_kept_back(found, data, resnet):
    images, labels = data
    fit, judge = nf.split_indices(500)
    codes = nf.capture(resnet, images, layers="layer4", progress=False)
    som = nf.SOM(5, 5, backend="torch", n_epochs=15, random_state=0).fit(codes["layer4"][fit])
    units = som.predict(codes["layer4"][judge])
    expected = nf.association(units, codes.predictions[judge], n_permutations=30, n_resamples=30)
    layer = found.layers["layer4"]
    assert found.side == 5
    assert layer.association.adjusted_mutual_information == expected.adjusted_mutual_information
    assert np.array_equal(layer.association.null, expected.null)
    assert np.array_equal(layer.occupancy.counts, np.bincount(units, minlength=25))
    assert found.accuracy == np.mean(codes.predictions[judge] == labels.numpy()[judge])
    assert layer.class_association.adjusted_mutual_information == pytest.approx(
        nf.association(units, labels.numpy()[judge]).adjusted_mutual_information
    )


def test_training_shows_beside_the_control(found):
    trained, untrained = found.layers["layer4"], found.control["layer4"]
    assert trained.association.interval[0] > untrained.association.adjusted_mutual_information
    assert trained.association.adjusted_mutual_information > trained.association.null.max()
    assert trained.geometry.classes.variance_ratio < untrained.geometry.classes.variance_ratio


def test_diagnosis_ranks_errors_beside_the_softmax(found):
    assert found.diagnosis.names == ("max-softmax", "codes of layer1", "codes of layer4")
    assert found.diagnosis.n_positive + found.diagnosis.n_negative == found.n_judge
    assert found.diagnosis.auroc[0] > 0.7


def test_page_needs_nothing_else(found, tmp_path):
    path = found.save(tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r'"data:image/png[^"]*"', '""', html))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    images = page.all("img")
    assert len(images) == 3 + 2 * len(LAYERS)
    for image in images:
        assert image["src"].startswith("data:image/png;base64,")
        assert base64.b64decode(image["src"].partition(",")[2], validate=True).startswith(b"\x89PNG")
        assert len(image["alt"]) > 20
    assert len(page.all("figcaption")) == len(images)
    assert len(html) < 2_000_000


def test_page_shows_the_numbers_that_were_measured(found):
    text = " ".join(Page(found.html).texts)
    for layer in LAYERS:
        assert f"{found.layers[layer].association.adjusted_mutual_information:.2f}" in text
        assert f"{found.layers[layer].participation_ratio:.1f}" in text
    assert f"{found.accuracy:.1%}" in text
    assert "shuffled" in text
    assert "untrained" in text
    assert any(f"answered “{name}”" in text for name in nf.CLASS_NAMES)


def test_no_figure_is_left_open(found, data, resnet):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    report(resnet, data[0][:60], layers="layer4", control=False, **QUICK)
    assert plt.get_fignums() == before


def test_same_seed_same_page(data, resnet):
    pages = [report(resnet, data[0][:60], layers="layer4", **QUICK).html for _ in range(2)]
    assert pages[0] == pages[1]


def test_names_are_escaped(data, resnet):
    names = [f"<script>alert({i})</script>" for i in range(10)]
    html = report(resnet, data[0][:60], layers="layer4", control=False, class_names=names, **QUICK).html
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_without_labels_errors_are_not_judged(data, resnet):
    found = report(resnet, data[0][:60], layers="layer4", control=False, **QUICK)
    assert found.accuracy is None
    assert found.diagnosis is None
    assert found.control is None
    assert "pass labels" in found.html


def test_few_errors_are_not_ranked(data, resnet):
    images, labels = data[0][:60], nf.capture(resnet, data[0][:60], layers="layer4").predictions
    found = report(resnet, images, labels=labels, layers="layer4", control=False, **QUICK)
    assert found.accuracy == 1
    assert found.diagnosis is None
    assert "there are 0 errors among 30 images" in found.html


def test_a_folder_of_photographs_whose_folders_name_the_outputs(tmp_path, data, resnet):
    """Class folders in another order than the outputs; grey images, which the transform of the model brings in."""
    images, labels = data
    for i in range(80):
        folder = tmp_path / nf.CLASS_NAMES[labels[i]].replace("/", "-")
        folder.mkdir(exist_ok=True)
        Image.fromarray((images[i, 0].numpy() * 255).astype(np.uint8)).save(folder / f"{i}.png")

    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = resnet
            self.transform = PixelTransform(None, None)
            self.class_names = tuple(name.replace("/", "-") for name in nf.CLASS_NAMES)

        def forward(self, x):
            return self.inside(x.mean(1, keepdim=True))

    found = report(Grey(), tmp_path, control=False, **QUICK)
    assert list(found.layers) == ["inside.layer1", "inside.layer2", "inside.layer3", "inside.layer4"]
    assert "SmallResNet" in found.chosen
    assert found.accuracy > 0.7
    model = Grey()
    model.class_names = ()
    other = report(model, tmp_path, layers="inside.layer4", control=False, **QUICK)
    assert other.accuracy is None  # the folders' names are not the outputs'
    assert other.layers["inside.layer4"].class_association.adjusted_mutual_information > 0.3


def test_data_sets_of_tuples_and_arrays_give_what_tensors_give(data, resnet):
    images = data[0][:60]
    settings = {"layers": "layer4", **QUICK}
    expected = report(resnet, images, **settings).layers["layer4"].association
    for same in (TensorDataset(images, data[1][:60]), images.numpy()):
        assert report(resnet, same, **settings).layers["layer4"].association.interval == expected.interval


def test_untrained_copy_is_new_and_leaves_the_model(data, resnet):
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    twin = untrained_copy(resnet, data[0])
    assert all(torch.equal(before[name], value) for name, value in resnet.state_dict().items())
    assert torch.equal(twin.normalise.mean, resnet.normalise.mean)
    assert not any(torch.equal(p, q) for p, q in zip(twin.parameters(), resnet.parameters(), strict=True) if p.ndim > 1)
    assert not any(module.training for module in twin.modules())
    again = untrained_copy(resnet, data[0])
    assert all(torch.equal(p, q) for p, q in zip(twin.state_dict().values(), again.state_dict().values(), strict=True))
    codes = nf.capture(twin, data[0][:128], layers=LAYERS, progress=False)
    spread = [codes[layer].std(0).mean() for layer in LAYERS]
    assert spread[1] > spread[0] / 20  # calibrated norms keep deep layers alive


def test_untrained_copy_shuffles_what_no_module_owns():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.arange(50.0))

    twin = untrained_copy(Token(), torch.zeros(1))
    assert not torch.equal(twin.token, torch.arange(50.0))
    assert torch.equal(twin.token.sort().values, torch.arange(50.0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": torch.rand(39, 1, 28, 28)}, ValueError, "at least 40 images, got 39"),
        ({"images": torch.zeros(60, 1, 28, 28)}, ValueError, "expected different answers"),
        ({"labels": [0, 1]}, ValueError, "one class for each of 60 images, got 2"),
        ({"pool": "spatial"}, ValueError, "one code per image"),
        ({"layers": "layr4"}, ValueError, "did you mean 'layer4'"),
        ({"images": 3}, TypeError, "a folder, a tensor, an array or a Dataset"),
        ({"images": "no/such/folder"}, FileNotFoundError, "a folder of images"),
        ({"side": 0}, ValueError, "side"),
        ({"side": 6}, ValueError, "side must be at most 5 for 30 images"),
        ({"class_names": ["a", "b"]}, ValueError, "each of 10 outputs, got 2"),
    ],
)
def test_errors_say_what_to_do(data, resnet, arguments, error, message):
    given = {"images": data[0][:60], "layers": "layer4", "control": False} | arguments
    with pytest.raises(error, match=message):
        report(resnet, given.pop("images"), **given, **QUICK)
