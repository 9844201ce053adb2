"""Damaged files, many of them: a loader refuses with ValueError, or gives what it gave before; nothing else happens.

Where a file carries checksums (a map is a zip archive), what is loaded must be equal; codes are memory-mapped and carry
none, so there the numbers may differ, but not the shapes nor the order of anything.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.data import read_idx, write_idx
from nfcodes_lib.models import load_weights

RUNS = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
WHERE = st.floats(0, 1, exclude_max=True)
DAMAGE = st.one_of(
    st.tuples(st.just("cut"), WHERE),
    st.tuples(st.just("flip"), WHERE, st.integers(0, 7)),
    st.tuples(st.just("overwrite"), WHERE, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("insert"), WHERE, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("replace"), st.binary(max_size=200)),
)


def damaged(content, damage):
    """`content` with one piece of damage; places are shares of its length, so that headers and data are both met."""
    kind, *rest = damage
    if kind == "replace":
        return rest[0]
    place = int(rest[0] ** 3 * len(content))  # headers more often than data
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ (1 << rest[1])]) + content[place + 1 :]
    if kind == "insert":
        return content[:place] + rest[1] + content[place:]
    return content[:place] + rest[1] + content[place + len(rest[1]) :]


def load_or_refuse(load, path, words):
    """What `load` returns; None if it refuses with ValueError, whose message must hold `words`."""
    try:
        return load(path)
    except ValueError as error:
        message = str(error)
    assert words in message
    return None


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good file of each kind: path and bytes."""
    folder = tmp_path_factory.mktemp("good")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    som = nf.SOM(2, 3, backend="torch", n_epochs=2, random_state=0).fit(x)
    layer = {"a": x, "b": x[:, :2].copy()}
    codes = nf.LayerCodes(layer, x[:, :1].copy(), {"a": (3, 2, 2), "b": (2, 1, 1)}, "mean")
    torch.manual_seed(0)
    save_file(nn.Linear(3, 2).state_dict(), folder / "weights.safetensors")
    write_idx(folder / "images.gz", np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    som.save(folder / "map.npz")
    codes.save(folder / "codes")
    return folder


@RUNS
@given(DAMAGE)
def test_a_damaged_map_is_refused_or_the_same(good, tmp_path, damage):
    path = tmp_path / "map.npz"
    path.write_bytes(damaged((good / "map.npz").read_bytes(), damage))
    som = load_or_refuse(nf.SOM.load, path, "expected a map saved by SOM.save")
    if som is not None:
        np.testing.assert_array_equal(som.codebook_, nf.SOM.load(good / "map.npz").codebook_)


@RUNS
@given(DAMAGE, st.sampled_from(["codes.json", "00-a.npy", "01-b.npy", "logits.npy"]))
def test_damaged_codes_are_refused_or_of_the_same_shape(good, tmp_path, damage, name):
    folder = tmp_path / "codes"
    folder.mkdir(exist_ok=True)
    for file in (good / "codes").iterdir():
        (folder / file.name).unlink(missing_ok=True)  # a mapped file must not be written to
        (folder / file.name).write_bytes(damaged(file.read_bytes(), damage) if file.name == name else file.read_bytes())
    codes = load_or_refuse(nf.LayerCodes.load, folder, str(folder))
    if codes is not None:
        assert [codes[layer].shape for layer in codes] == [(20, 3), (20, 2)]
        assert codes.logits is None or codes.logits.shape == (20, 1)


@RUNS
@given(DAMAGE)
def test_damaged_weights_are_refused_or_of_the_same_shape(good, tmp_path, damage):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged((good / "weights.safetensors").read_bytes(), damage))
    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if load_or_refuse(lambda path: [load_weights(model, path)], path, "weights.safetensors") is None:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@RUNS
@given(DAMAGE)
def test_a_damaged_idx_file_is_refused_or_the_same(good, tmp_path, damage):
    path = tmp_path / "images.gz"
    path.write_bytes(damaged((good / "images.gz").read_bytes(), damage))
    array = load_or_refuse(read_idx, path, "images.gz")
    if array is not None:
        np.testing.assert_array_equal(array, read_idx(good / "images.gz"))


def test_the_good_files_load(good):
    """Without this, loaders that refuse everything would pass."""
    assert nf.SOM.load(good / "map.npz").codebook_.shape == (2, 3, 3)
    assert nf.LayerCodes.load(good / "codes").layers == ("a", "b")
    load_weights(nn.Linear(3, 2), good / "weights.safetensors")
    assert read_idx(good / "images.gz").shape == (5, 4, 3)
