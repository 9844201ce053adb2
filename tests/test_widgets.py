"""Explorers carry what they claim: pictures that decode, marks where the units lie, words that agree with the results.

That they answer to mouse and keyboard is tested in a browser, in tests/browser.
"""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import nfcodes_lib as nf
from nfcodes_lib import widgets
from nfcodes_lib._explorer import Canvas, Explorer, sheet
from nfcodes_lib.adversarial import trace_attack
from nfcodes_lib.attacks import attack_images

LAYERS = ["layer1", "layer4"]
EPSILONS = [0, 8 / 255]


@pytest.fixture(scope="module")
def setting(resnet):
    images, labels = nf.load_images("test", n_samples=120)
    codes = nf.capture(resnet, images, layers=LAYERS)
    soms = {k: nf.SOM(3, 4, backend="torch", n_epochs=3, random_state=0).fit(codes[k][40:]) for k in LAYERS}
    return images, labels, codes, soms


@pytest.fixture(scope="module")
def traced(resnet, setting):
    images, labels, codes, soms = setting
    answers = codes.predictions[40:]
    tables = {k: nf.code_table(soms[k].labels_, answers, n_units=12, n_outputs=10) for k in LAYERS}
    options = {"attack": "fgsm", "epsilons": EPSILONS}
    trace = trace_attack(resnet, images[:20], labels[:20], soms, tables=tables, **options)
    seen, truth = images[:20][trace.index], labels[:20][trace.index]
    return trace, attack_images(resnet, seen, truth, **options), tables, seen


def panel(explorer, name):
    (found,) = [each for each in explorer.panels if each["name"] == name]
    return found


def decode(picture):
    head, _, body = picture["src"].partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def tile(a_sheet, index):
    """One image of a sheet, as float in [0, 1]."""
    pixels = np.asarray(decode(a_sheet), dtype=float) / 255
    height, width = pixels.shape[0] // a_sheet["rows"], pixels.shape[1] // a_sheet["columns"]
    row, column = divmod(index, a_sheet["columns"])
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text within each kind of tag."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, None

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = (tag, dict(attributes).get("type"))

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, text):
        self.texts[self.open] = self.texts.get(self.open, "") + text


def test_html_is_whole_and_asks_no_other_host():
    explorer = Explorer("A </script> of a title", [], [{"kind": "text", "name": "t", "texts": "</script><b>"}])
    reader = Reader()
    reader.feed(explorer._repr_html_())
    data = reader.texts["script", "application/json"]
    assert json.loads(data)["panels"][0]["texts"] == "</script><b>"
    assert json.loads(data)["title"] == explorer.title
    assert not any({"src", "href"} & set(attributes) for _, attributes in reader.tags)
    outside = re.findall(r"https?://[^\"' )]+", explorer.to_html())
    assert set(outside) <= {"http://www.w3.org/2000/svg"}  # a name, which no browser fetches


def test_sheet_keeps_every_pixel():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6)) / 255
    found = sheet(images)
    assert (found["columns"], found["rows"], found["aspect"]) == (3, 2, "6/4")
    for i, image in enumerate(images):
        np.testing.assert_allclose(tile(found, i), np.moveaxis(image, 0, -1), atol=1e-9)
    grey = sheet(torch.full((2, 1, 2, 2), 0.2))
    assert decode(grey).mode == "L"
    assert (tile(grey, 1) == 0.2).all()


@pytest.mark.parametrize("shape", [(4, 4), (0, 1, 4, 4), (2, 2, 4, 4)])
def test_sheet_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1 or 3, height, width\), got"):
        sheet(np.zeros(shape))


def test_places_are_where_the_axes_draw():
    canvas = Canvas(2, 2)
    canvas.ax.set(xlim=(0, 10), ylim=(10, 0))
    canvas.ax.plot(7, 2, "s", color="#ff0000", markersize=6)
    ((x, y),) = canvas.places(np.array([[2.0, 7.0]]))
    picture = canvas.picture("a dot")
    red = np.asarray(decode(picture).convert("RGB"), dtype=int)
    at = np.argwhere((red[..., 0] > 200) & (red[..., 1] < 60)).mean(0)
    np.testing.assert_allclose(at, [y, x], atol=1.5)
    assert (picture["width"], picture["height"]) == decode(picture).size == (300, 300)


def test_no_figure_is_left_to_pyplot(setting):
    images, _, codes, soms = setting
    before = plt.get_fignums()
    widgets.explore_map(soms, codes, images, codes.predictions)
    assert plt.get_fignums() == before


def test_training_has_a_picture_for_each_epoch():
    x = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    epochs = []
    som = nf.SOM(3, 4, backend="torch", n_epochs=4, random_state=0).fit(x, callback=epochs.append)
    explorer = widgets.explore_training(epochs, x)
    pictures = panel(explorer, "codebook")["pictures"]
    assert len(pictures) == len(explorer.controls[0]["options"]) == 5
    assert len({picture["src"] for picture in pictures}) == 5
    assert len({decode(picture).size for picture in pictures}) == 1
    texts = panel(explorer, "state")["texts"]
    assert "before training" in texts[0]
    assert f"{som.history_[-1]:.3g}" in texts[-1]
    assert repr(explorer) == "<Explorer 'A map in training': epoch (5)>"


def test_training_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="expected at least one epoch, got none; collect them with"):
        widgets.explore_training([], np.zeros((3, 2)))
    epoch = nf.Epoch(0, None, np.zeros((2, 2, 3), np.float32), np.zeros(4, int), 0.0)
    with pytest.raises(ValueError, match=r"data must have shape \(n_samples, 3\), as the codebook, got \(5, 2\)"):
        widgets.explore_training([epoch], np.zeros((5, 2)))


def test_map_tells_of_each_unit_what_its_table_says(setting):
    images, _, codes, soms = setting
    explorer = widgets.explore_map(soms, codes, images, codes.predictions, names=nf.CLASS_NAMES, n_exemplars=3)
    layer, grid = explorer.controls
    assert layer["options"] == LAYERS
    assert (grid["n"], grid["columns"]) == (12, 4)
    for at, name in enumerate(LAYERS):
        units = soms[name].predict(codes[name])
        table = nf.code_table(units, codes.predictions, n_units=12, n_outputs=10)
        sizes = np.array(grid["views"][at]["sizes"])
        assert sizes.max() == 1
        assert (sizes[table.n_samples == 0] == 0).all()
        order = np.argsort(table.n_samples)
        assert (np.diff(sizes[order]) >= 0).all()
        for unit in range(12):
            shares = panel(explorer, "table")["shares"][at][unit]
            if table.n_samples[unit] == 0:
                assert shares is None
                assert "no image" in panel(explorer, "unit")["texts"][at][unit]
                continue
            np.testing.assert_allclose(shares, table.probabilities[unit], atol=5e-4)
            said = f"with {table.n_samples[unit]} image"
            assert said in panel(explorer, "unit")["texts"][at][unit]
            distances = np.linalg.norm(codes[name] - soms[name].codebook_.reshape(12, -1)[unit], axis=1)
            first, label = panel(explorer, "exemplars")["items"][at][unit][0]
            nearest = int(distances.argmin())
            assert label == nf.CLASS_NAMES[codes.predictions[nearest]]
            shown = tile(explorer.sheets[panel(explorer, "exemplars")["sheet"]], first)
            np.testing.assert_allclose(shown, images[nearest, 0], atol=1 / 255)
    assert "own" not in [each["name"] for each in explorer.panels]


def test_map_shows_reconstructions_where_there_are_some(setting):
    images, _, codes, soms = setting
    own = {name: torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0)) for name in LAYERS}
    explorer = widgets.explore_map(soms, codes, images, codes.predictions, reconstructions=own)
    for at in range(2):
        index, _ = panel(explorer, "own")["items"][at][7][0]
        shown = tile(explorer.sheets[panel(explorer, "own")["sheet"][at]], index)
        np.testing.assert_allclose(shown, own[LAYERS[at]][7, 0], atol=1 / 255)
    with pytest.raises(ValueError, match="reconstructions of layer1 must hold one image for each of 12 units, got 11"):
        widgets.explore_map(soms, codes, images, codes.predictions, reconstructions={k: own[k][:11] for k in LAYERS})
    with pytest.raises(ValueError, match=r"reconstructions must hold every layer of soms, got none for \['layer4'\]"):
        widgets.explore_map(soms, codes, images, codes.predictions, reconstructions={"layer1": own["layer1"]})


def test_map_refuses_maps_of_two_sizes(setting):
    images, _, codes, soms = setting
    other = nf.SOM(2, 2, backend="torch", n_epochs=1).fit(codes["layer4"])
    with pytest.raises(ValueError, match="the maps must have one size, got"):
        widgets.explore_map(soms | {"layer4": other}, codes, images, codes.predictions)


def test_layers_leave_the_chosen_images_out(setting):
    images, labels, codes, soms = setting
    explorer = widgets.explore_layers(soms, codes, images, chosen=[3, 5], labels=labels, names=nf.CLASS_NAMES)
    tables = panel(explorer, "table")["shares"]
    for at, name in enumerate(LAYERS):
        units = soms[name].predict(codes[name])
        others = np.setdiff1d(np.arange(120), [3, 5])
        table = nf.code_table(units[others], codes.predictions[others], n_units=12, n_outputs=10)
        np.testing.assert_allclose(tables[at][1], table.probabilities[units[5]], atol=5e-4)
        neighbors = panel(explorer, "neighbors")
        for index, _ in neighbors["items"][at][0]:
            shown = tile(explorer.sheets[neighbors["sheet"]], index)
            assert np.abs(shown - images[3, 0].numpy()).max() > 0.05
    softmax = torch.softmax(torch.from_numpy(codes.logits[[3, 5]]).double(), 1)
    np.testing.assert_allclose(panel(explorer, "answer")["shares"], softmax, atol=5e-4)
    assert f"it is: {nf.CLASS_NAMES[labels[5]]}." in panel(explorer, "state")["texts"][0][1]


def test_layers_refuse_what_does_not_fit(setting):
    images, _, codes, soms = setting
    with pytest.raises(ValueError, match="images must be those of the codes, 120 of them, got 100"):
        widgets.explore_layers(soms, codes, images[:100], chosen=[0])
    with pytest.raises(ValueError, match=r"chosen must lie in \[0, 120\), got 120"):
        widgets.explore_layers(soms, codes, images, chosen=[120])


def test_trace_marks_the_units_of_the_trace(setting, traced):
    _, _, _, soms = setting
    trace, attacked, tables, seen = traced
    explorer = widgets.explore_trace({"FGSM": trace}, {"FGSM": attacked}, soms, tables, seen, chosen=[1, 4])
    for at, name in enumerate(LAYERS):
        clean, there = set(), set()
        for j, i in enumerate([1, 4]):
            for e in range(2):
                marked = panel(explorer, name)["marks"][j][0][e]
                kinds = {item["kind"]: item for item in marked["items"]}
                assert set(kinds) == {"circle", "cross", "triangle", "line"}
                clean.add((trace.clean_units[at, i], kinds["circle"]["x"], kinds["circle"]["y"]))
                there.add((trace.paths.units[e, at, i], kinds["cross"]["x"], kinds["cross"]["y"]))
                moved = trace.paths.units[e, at, i] != trace.clean_units[at, i]
                far = (kinds["cross"]["x"], kinds["cross"]["y"]) != (kinds["circle"]["x"], kinds["circle"]["y"])
                assert moved == far
        both = clean | there
        assert len({unit for unit, *_ in both}) == len(both)  # one place for each unit, whichever mark stands there
    images = panel(explorer, "images")
    for j, i in enumerate([1, 4]):
        (first, _), _, (last, _) = images["items"][j][0][1]
        np.testing.assert_allclose(tile(explorer.sheets[0], first), seen[i, 0], atol=1 / 255)
        np.testing.assert_allclose(tile(explorer.sheets[0], last), attacked.images[1, i, 0], atol=1 / 255)
    answer = str(trace.paths.predictions[1, 4])
    assert f"Attacked: {answer}." in panel(explorer, "state")["texts"][1][0][1]


def test_trace_refuses_attacks_of_other_images(setting, traced):
    _, _, _, soms = setting
    trace, attacked, tables, seen = traced
    other = nf.SOM(2, 2, backend="torch")  # never asked: the check comes first
    broken = replace(attacked, predictions=attacked.predictions + 1)
    with pytest.raises(ValueError, match=r"attacked\['FGSM'\] must get the answers of its trace"):
        widgets.explore_trace({"FGSM": trace}, {"FGSM": broken}, {"layer1": other, "layer4": other}, tables, seen)
    with pytest.raises(ValueError, match=r"images must be the \d+ that 'FGSM' traced, images\[trace.index\], got 3"):
        widgets.explore_trace({"FGSM": trace}, {"FGSM": attacked}, soms, tables, seen[:3])
