"""What goes wrong, as a table: each bad input, the error it must raise, and nothing changed on disk or in the model.

A row is (what is wrong, the call, the error's type, what its message must say). The calls get a world of small things
that are all in order; each spoils one of them.
"""

# ruff: noqa: E501 - one line a row, however long: it is read as a table
import hashlib
import io
import pickle
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.adversarial import trace_attack
from nfcodes_lib.architectures import auto_layers
from nfcodes_lib.attacks import attack_images
from nfcodes_lib.decoder import train_decoder
from nfcodes_lib.encoder import Encoder
from nfcodes_lib.image_folders import open_images
from nfcodes_lib.patching import patch_test
from nfcodes_lib.pooling import pool_maps
from nfcodes_lib.reconstruct import reconstruct
from nfcodes_lib.reconstruction import exemplars

NAN, INF = float("nan"), float("inf")


def network():
    """Three channels, two stages and a head: large enough to be captured, small enough to run in a millisecond."""
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("first", nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()))
    net.add_module("second", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()))
    net.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", nn.Linear(4, 3))
    return net.eval()


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Everything in order: a network, images, labels, codes in memory and on disk, a map in memory and in a file."""
    folder = tmp_path_factory.mktemp("world")
    world = SimpleNamespace(net=network(), folder=folder)
    world.x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    world.labels = torch.arange(12) % 3
    world.codes = nf.capture(world.net, world.x, layers=["first", "second"], out=folder / "codes")
    world.second = np.array(world.codes["second"])
    world.som = nf.SOM(2, 3, backend="torch", n_epochs=2, random_state=0).fit(world.second)
    world.map = world.som.save(folder / "map.npz")
    world.units, world.outputs = world.som.predict(world.second), world.codes.predictions
    world.table = nf.code_table(world.units, world.outputs, n_units=6)
    return world


def state(world):
    """All that must not change: files, parameters, modes, hooks, the arrays that were passed."""
    digest = hashlib.sha256()
    for path in sorted(world.folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    for name, value in world.net.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    for module in world.net.modules():
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(module.__dict__))
        digest.update(repr((module.training, hooks, [p.requires_grad for p in module.parameters()])).encode())
    for array in (world.x.numpy(), world.labels.numpy(), world.second, world.som.codebook_, world.units):
        digest.update(array.tobytes())
    return digest.hexdigest()


def spoiled(world, **parts):
    """A copy of the world's images with the given value in one pixel, or converted."""
    x = world.x.clone()
    x[3, 0, 2, 2] = parts["value"]
    return x


def damaged(world, name, change):
    """A file or folder of the world copied elsewhere, and changed there."""
    target = world.folder.parent / f"{world.folder.name}-{name}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    if (world.folder / name).is_dir():
        shutil.copytree(world.folder / name, target / name)
    else:
        shutil.copy(world.folder / name, target / name)
    change(target / name)
    return target / name


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def members(path, **changed):
    """Write a map's archive again with members replaced; None leaves one out."""
    with np.load(path) as archive:
        entries = dict(archive)
    entries = {**entries, **changed}
    np.savez(path, **{name: value for name, value in entries.items() if value is not None})


def bomb(path, n_bytes):
    """An archive whose codebook unpacks to `n_bytes` of zeros from a thousandth of that."""
    with np.load(path) as archive:
        entries = {name: archive[name] for name in archive.files if name != "codebook"}
    np.savez(path, **entries)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2, 3, n_bytes // 24)}
    )
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("codebook.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(n_bytes // 2**20):
            member.write(bytes(2**20))


def traversal(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../escaped.npy", b"x")


class Harm:
    def __reduce__(self):
        return open, ("harm-was-done", "w")


def with_pickle(path):
    path.write_bytes(pickle.dumps({"codebook": Harm()}))


def with_pickled_array(path):
    members(path, codebook=np.array([Harm()], dtype=object))


def replaced(path, name, array):
    np.save(next(path.glob(name)), array)


SHORT = {"n_permutations": 9, "n_resamples": 9}
TABLE = [
    # -- capture: the model and its layers
    ("capture: no module", lambda w: nf.capture(lambda x: x, w.x, layers="a"), TypeError, "must be a torch.nn.Module, got function"),
    ("capture: a misspelt layer", lambda w: nf.capture(w.net, w.x, layers="secnd"), ValueError, "got 'secnd'; did you mean 'second'"),
    ("capture: no layer", lambda w: nf.capture(w.net, w.x, layers=[]), ValueError, "one or more different names"),
    ("capture: a layer twice", lambda w: nf.capture(w.net, w.x, layers=["first", "first"]), ValueError, "one or more different names"),
    ("capture: a number as layer", lambda w: nf.capture(w.net, w.x, layers=[1]), TypeError, "layers must be a name or a list of names"),
    ("capture: None as layers", lambda w: nf.capture(w.net, w.x, layers=None), TypeError, "layers must be a name or a list of names"),
    ("capture: auto without a known family", lambda w: nf.capture(w.net, w.x, layers="auto"), ValueError, "known family .* name its layers, such as"),
    ("capture: auto_layers of no module", lambda w: auto_layers(3), TypeError, "must be a torch.nn.Module, got int"),
    ("capture: a part that the layer has not", lambda w: nf.capture(w.net, w.x, layers="second[0]"), TypeError, r"must return a tensor \[0\], got Tensor"),
    # -- capture: the images
    ("capture: a list of images", lambda w: nf.capture(w.net, [[1.0]], layers="first"), TypeError, "images must be a tensor, .* got list"),
    ("capture: bytes", lambda w: nf.capture(w.net, (w.x * 255).byte(), layers="first"), TypeError, r"images must be floats, got torch\.uint8; .* / 255"),
    ("capture: text", lambda w: nf.capture(w.net, np.array(["a", "b"]), layers="first"), TypeError, "images must be floats, got an array of"),
    ("capture: objects", lambda w: nf.capture(w.net, np.array([None, 1]), layers="first"), TypeError, "images must be floats, got an array of object"),
    ("capture: complex numbers", lambda w: nf.capture(w.net, w.x.to(torch.complex64), layers="first"), TypeError, "images must be floats, got torch.complex64"),
    ("capture: no images", lambda w: nf.capture(w.net, w.x[:0], layers="first"), ValueError, "at least one image"),
    ("capture: an empty loader", lambda w: nf.capture(w.net, torch.utils.data.DataLoader([]), layers="first"), ValueError, "at least one image"),
    ("capture: a NaN", lambda w: nf.capture(w.net, spoiled(w, value=NAN), layers="first"), ValueError, "expected finite numbers, got NaN"),
    ("capture: infinity", lambda w: nf.capture(w.net, spoiled(w, value=INF), layers="first"), ValueError, "expected finite numbers, got NaN"),
    ("capture: three channels for one", lambda w: nf.capture(w.net, w.x.expand(-1, 3, -1, -1), layers="first"), RuntimeError, "expected input.* to have 1 channels, but got 3"),
    ("capture: one image without its batch", lambda w: nf.capture(w.net, w.x[0], layers="second"), ValueError, "expected 4D input"),
    ("capture: a number", lambda w: nf.capture(w.net, torch.tensor(1.0), layers="first"), TypeError, "images must have a length"),
    ("capture: labels instead of images", lambda w: nf.capture(w.net, w.labels, layers="first"), TypeError, "images must be floats, got torch.int64"),
    # -- capture: settings
    ("capture: a misspelt pool", lambda w: nf.capture(w.net, w.x, layers="first", pool="maen"), ValueError, "pool must be one of .* got 'maen'; did you mean 'mean'"),
    ("capture: pool 0", lambda w: nf.capture(w.net, w.x, layers="first", pool=0), ValueError, "positive int, got 0"),
    ("capture: pool 2.0", lambda w: nf.capture(w.net, w.x, layers="first", pool=2.0), ValueError, "positive int, got 2.0"),
    ("capture: a grid finer than the map", lambda w: nf.capture(w.net, w.x, layers="second", pool=5), ValueError, "pool must be at most 4"),
    ("capture: the class token of feature maps", lambda w: nf.capture(w.net, w.x, layers="second", pool="cls"), ValueError, "expects a sequence of tokens, got feature maps"),
    ("capture: five axes", lambda w: pool_maps(torch.zeros(1, 2, 3, 4, 5), "mean"), ValueError, r"got \(1, 2, 3, 4, 5\); name another"),
    ("capture: batches of none", lambda w: nf.capture(w.net, w.x, layers="first", batch_size=0), ValueError, "batch_size must be a positive int, got 0"),
    ("capture: batches of 2.5", lambda w: nf.capture(w.net, w.x, layers="first", batch_size=2.5), ValueError, "batch_size must be a positive int, got 2.5"),
    ("capture: an unknown precision", lambda w: nf.capture(w.net, w.x, layers="first", precision="half"), ValueError, "precision must be None or one of"),
    ("capture: onto what exists", lambda w: nf.capture(w.net, w.x, layers="first", out=w.folder / "codes"), FileExistsError, "exists; remove it or choose another name"),
    ("capture: below a file", lambda w: nf.capture(w.net, w.x, layers="first", out=w.map / "codes"), OSError, "cannot make the codes of .*; choose a folder"),
    # -- codes
    ("codes: a layer not captured", lambda w: w.codes["frist"], KeyError, "got 'frist'; did you mean 'first'"),
    ("codes: a row that is none", lambda w: w.codes.positions("first", [99]), ValueError, r"rows must lie in \[0, 12\)"),
    ("codes: saved onto what exists", lambda w: w.codes.save(w.folder / "codes"), FileExistsError, "exists; remove it"),
    ("codes: no folder", lambda w: nf.LayerCodes.load(w.folder / "nothing"), FileNotFoundError, "expected a folder of layer codes"),
    ("codes: a map for codes", lambda w: nf.LayerCodes.load(w.map), FileNotFoundError, "expected a folder of layer codes"),
    ("codes: an empty folder", lambda w: nf.LayerCodes.load(w.folder.parent), ValueError, r"description of a complete capture in .*codes\.json"),
    ("codes: a file cut off", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: cut(p / "logits.npy"))), ValueError, r"complete npy file at .*logits\.npy"),
    ("codes: bytes appended", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: (p / "logits.npy").write_bytes((p / "logits.npy").read_bytes() + b"x"))), ValueError, r"complete npy file at .*logits\.npy"),
    ("codes: a layer's file missing", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: (p / "01-second.npy").unlink())), ValueError, r"complete npy file at .*01-second\.npy"),
    ("codes: pickled objects", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: replaced(p, "00*", np.array([Harm()])))), ValueError, "complete npy file"),
    ("codes: an archive for an array", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: shutil.copy(w.map, p / "logits.npy"))), ValueError, "complete npy file"),
    ("codes: doubles", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: replaced(p, "00*", np.zeros((12, 3))))), ValueError, "expected a float32 matrix"),
    ("codes: rows missing", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: replaced(p, "00*", np.zeros((11, 3), "f4")))), ValueError, "expected 12 rows for layer 'first'"),
    ("codes: a file elsewhere", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: edit(p, "00-first.npy", "../map.npz"))), ValueError, "description of a complete capture"),
    ("codes: a description nested without end", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: (p / "codes.json").write_text("[" * 10**5))), ValueError, "description of a complete capture"),
    ("codes: a description that is a list", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: (p / "codes.json").write_text("[1]"))), ValueError, "description of a complete capture"),
    ("codes: a description of bytes", lambda w: nf.LayerCodes.load(damaged(w, "codes", lambda p: (p / "codes.json").write_bytes(b"\xff\xfe\x00"))), ValueError, "description of a complete capture"),
    # -- maps: settings and data
    ("map: no rows", lambda w: nf.SOM(0, 3, backend="torch").fit(w.second), ValueError, "n_rows"),
    ("map: half a column", lambda w: nf.SOM(2, 2.5, backend="torch").fit(w.second), ValueError, "n_columns"),
    ("map: a misspelt backend", lambda w: nf.SOM(2, 3, backend="trch").fit(w.second), ValueError, "backend"),
    ("map: a negative radius", lambda w: nf.SOM(2, 3, backend="torch", radiusN=-1).fit(w.second), ValueError, "radius"),
    ("map: NaN in the data", lambda w: nf.SOM(2, 3, backend="torch").fit(np.full((5, 2), NAN)), ValueError, "NaN"),
    ("map: infinity in the data", lambda w: nf.SOM(2, 3, backend="torch").fit(np.full((5, 2), INF)), ValueError, "infinity"),
    ("map: data of one axis", lambda w: nf.SOM(2, 3, backend="torch").fit(w.second[0]), ValueError, "2D array"),
    ("map: no samples", lambda w: nf.SOM(2, 3, backend="torch").fit(w.second[:0]), ValueError, "0 sample"),
    ("map: text", lambda w: nf.SOM(2, 3, backend="torch").fit(np.array([["a"], ["b"]])), ValueError, "could not convert|dtype"),
    ("map: asked before it is fitted", lambda w: nf.SOM(2, 3).predict(w.second), ValueError, "not fitted"),
    ("map: saved before it is fitted", lambda w: nf.SOM(2, 3).save(w.folder / "early.npz"), ValueError, "not fitted"),
    ("map: another layer's codes", lambda w: w.som.predict(w.codes["first"]), ValueError, "3 features, but SOM is expecting 4"),
    ("map: saved into no folder", lambda w: w.som.save(w.folder / "no" / "map.npz"), FileNotFoundError, "no"),
    # -- maps: files
    ("map: no file", lambda w: nf.SOM.load(w.folder / "nothing.npz"), FileNotFoundError, "expected a saved map at"),
    ("map: a folder", lambda w: nf.SOM.load(w.folder / "codes"), (ValueError, OSError), "codes"),
    ("map: a file cut off", lambda w: nf.SOM.load(damaged(w, "map.npz", cut)), ValueError, "expected a map saved by SOM.save"),
    ("map: an empty file", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: p.write_bytes(b""))), ValueError, "expected a map saved by SOM.save"),
    ("map: a pickle", lambda w: nf.SOM.load(damaged(w, "map.npz", with_pickle)), ValueError, "expected a map saved by SOM.save"),
    ("map: a pickled array inside", lambda w: nf.SOM.load(damaged(w, "map.npz", with_pickled_array)), ValueError, "expected a map saved by SOM.save"),
    ("map: a member outside the archive", lambda w: nf.SOM.load(damaged(w, "map.npz", traversal)), ValueError, r"members \['\.\./\.\./escaped\.npy'\] that no map has"),
    ("map: a zip bomb", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: bomb(p, 2**26))), ValueError, r"compressed members .* would unpack to 67,\d+,\d+ bytes"),
    ("map: no codebook", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: members(p, codebook=None))), ValueError, "no entry 'codebook'"),
    ("map: NaN in the codebook", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: members(p, codebook=np.full((2, 3, 4), NAN, "f4")))), ValueError, r"\['codebook'\] do not fit"),
    ("map: labels beyond the map", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: members(p, labels=np.array([6])))), ValueError, r"\['labels'\] do not fit"),
    ("map: a header that is no JSON", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: members(p, header=np.array("{")))), ValueError, "expected a map saved by SOM.save"),
    ("map: a header that is a list", lambda w: nf.SOM.load(damaged(w, "map.npz", lambda p: members(p, header=np.array("[1]")))), ValueError, "expected a map saved by SOM.save"),
    # -- units and outputs
    ("units: coordinates", lambda w: nf.association(w.som.bmus_, w.outputs, **SHORT), ValueError, "som.predict"),
    ("units: floats", lambda w: nf.association(w.units * 1.0, w.outputs, **SHORT), ValueError, "must be integers"),
    ("units: negative", lambda w: nf.association(w.units - 9, w.outputs, **SHORT), ValueError, "indices from 0"),
    ("units: fewer than outputs", lambda w: nf.association(w.units[:5], w.outputs, **SHORT), ValueError, "same samples"),
    ("units: none", lambda w: nf.association(w.units[:0], w.outputs[:0], **SHORT), ValueError, "at least one sample"),
    ("units: beyond the map", lambda w: nf.code_table(w.units, w.outputs, n_units=2), ValueError, r"must lie in \[0, 2\)"),
    ("units: judged by another map's table", lambda w: nf.code_accuracy(w.table, w.units + 9, w.outputs), ValueError, r"must lie in \[0, 6\)"),
    ("units: confidence of 95", lambda w: nf.association(w.units, w.outputs, confidence=95, **SHORT), ValueError, "confidence must lie between 0 and 1"),
    ("units: a hit map of another size", lambda w: nf.hit_map(w.units, 1, 2), ValueError, "must lie in"),
    ("units: occupancy of no map", lambda w: nf.occupancy(w.units, n_units=0), ValueError, "n_units"),
    ("controls: more clusters than samples", lambda w: nf.kmeans_units(w.second, n_units=99), ValueError, "n_units|samples"),
    ("controls: NaN", lambda w: nf.kmeans_units(np.full((5, 2), NAN), n_units=2), ValueError, "NaN|finite"),
    ("controls: Moran's I of a vector", lambda w: nf.morans_i(np.arange(5.0)), ValueError, "shape|axes"),
    ("controls: one seed for a trend", lambda w: nf.depth_trend(np.zeros((0, 4))), ValueError, "seed|shape|layers"),
    # -- images and networks by name
    ("data: a misspelt split", lambda w: nf.load_images("tets"), ValueError, "did you mean 'test'"),
    ("data: a misspelt source", lambda w: nf.load_images(source="mnst"), ValueError, "did you mean 'mnist'"),
    ("data: more than there are", lambda w: nf.load_images(n_samples=10**6), ValueError, "n_samples must be between 1 and 10,000"),
    ("data: half an image", lambda w: nf.load_images(n_samples=0.5), ValueError, "n_samples must be between 1"),
    ("data: shares beyond one", lambda w: nf.split_indices(10, fractions=(0.9, 0.9)), ValueError, "add up to at most 1"),
    ("data: an empty part", lambda w: nf.split_indices(2, fractions=(0.9, 0.1)), ValueError, "leaves one empty"),
    ("data: a folder without images", lambda w: open_images(w.folder), ValueError, r"expected images \(.jpg, .png, …\) in"),
    ("models: a misspelt name", lambda w: nf.load_model("resent"), ValueError, "did you mean 'resnet'"),
    ("models: a seed that was not trained", lambda w: nf.load_model("resnet", seed=77), ValueError, "seed must be one of"),
    ("models: a device that is not there", lambda w: nf.load_model("resnet", device="abacus"), RuntimeError, "abacus"),
    # -- what is done with a model and its maps
    ("attack: images beyond [0, 1]", lambda w: attack_images(w.net, w.x * 2, w.labels, epsilons=[0.1]), ValueError, r"\[0, 1\]"),
    ("attack: labels missing", lambda w: attack_images(w.net, w.x, w.labels[:3], epsilons=[0.1]), ValueError, "labels"),
    ("attack: a negative budget", lambda w: attack_images(w.net, w.x, w.labels, epsilons=[-0.1]), ValueError, "epsilon"),
    ("attack: a misspelt attack", lambda w: attack_images(w.net, w.x, w.labels, epsilons=[0.1], attack="pdg"), ValueError, "pdg"),
    ("trace: the map of another layer", lambda w: trace_attack(w.net, w.x, w.labels, {"first": w.som}, epsilons=[0.1]), ValueError, "first"),
    ("trace: a map not fitted", lambda w: trace_attack(w.net, w.x, w.labels, {"second": nf.SOM(2, 3)}, epsilons=[0.1]), (ValueError, TypeError), "fit"),
    ("patch: donors of another number", lambda w: patch_test(w.net, w.x, w.x[:3], w.outputs, layers="first"), ValueError, "donors"),
    ("encoder: positions as images", lambda w: Encoder(w.net, "second", probe=w.x, pool="spatial"), ValueError, "pool must give one code per image"),
    ("decoder: one image", lambda w: train_decoder(w.net, w.x[:1], layers="second"), ValueError, "two images or more"),
    ("reconstruct: targets of another layer", lambda w: reconstruct(w.net, "first", w.second, shape=(1, 8, 8)), ValueError, "units|targets"),
    ("reconstruct: NaN", lambda w: reconstruct(w.net, "second", np.full((1, 4), NAN), shape=(1, 8, 8)), ValueError, "NaN|finite"),
    ("exemplars: of another layer", lambda w: exemplars(w.codes["first"], w.second), ValueError, "units"),
]  # fmt: skip


def edit(folder, old, new):
    path = folder / "codes.json"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(("call", "error", "message"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_bad_input(ready, call, error, message, monkeypatch):
    monkeypatch.chdir(ready.folder)
    before = state(ready)
    with pytest.raises(error, match=message):
        call(ready)
    assert state(ready) == before, "something was changed"


def test_the_table_is_long_enough():
    assert len({name for name, *_ in TABLE}) == len(TABLE) >= 60


def test_what_the_table_spoils_was_in_order(ready):
    """The checks above would pass in a world where nothing works."""
    assert nf.SOM.load(ready.map).predict(ready.second).tolist() == ready.units.tolist()
    assert nf.LayerCodes.load(ready.folder / "codes")["second"].tolist() == ready.second.tolist()
    assert state(ready) == state(ready)
