"""The SOM as its users meet it: one estimator, two backends, the same promises."""

import json
import zipfile

import numpy as np
import pytest

from nfcodes_lib._som_settings import radii
from nfcodes_lib.som import SOM, Epoch

BACKENDS = ["somoclu", "torch"]


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=3, size=(4, 6))
    return (centres[rng.integers(0, 4, 300)] + rng.normal(size=(300, 6))).astype(np.float32)


def small(backend="torch", **settings):
    return SOM(**{"n_rows": 4, "n_columns": 3, "backend": backend, "n_epochs": 4, "random_state": 0, **settings})


def given_codebook(backend="torch", **settings):
    """Units at the points (row, column) of the plane: every winner can be told by eye."""
    points = np.stack(np.meshgrid(np.arange(3.0), np.arange(4.0), indexing="ij"), axis=-1).astype(np.float32)
    return SOM(3, 4, backend=backend, n_epochs=0, initialization=points, **settings)


@pytest.mark.parametrize("backend", BACKENDS)
def test_winners_of_a_codebook_set_by_hand(backend):
    points = np.array([[0.1, 0.2], [1.9, 3.2], [1.0, 0.6], [0.0, 2.4]], np.float32)
    with pytest.warns(UserWarning, match="more units"):
        som = given_codebook(backend).fit(points)
    assert som.bmus_.tolist() == [[0, 0], [2, 3], [1, 1], [0, 2]]
    assert som.labels_.tolist() == [0, 11, 5, 2]
    assert som.predict(points).tolist() == [0, 11, 5, 2]
    expected = [np.hypot(0.1, 0.2), np.hypot(0.1, 0.2), 0.4, 0.4]
    assert som.quantization_error(points) == pytest.approx(np.mean(expected), rel=1e-6)
    assert som.score(points) == -som.quantization_error(points)
    assert som.transform(points)[2, 5] == pytest.approx(0.4, rel=1e-6)
    assert som.topographic_error(points) == 0.0
    assert som.history_.shape == (0,)


def test_topographic_error_counts_torn_neighbourhoods():
    """Swap two far units: samples between them and their old neighbours have their two best units far apart."""
    som = given_codebook()
    codebook = som.initialization.copy()
    codebook[0, 0], codebook[2, 3] = codebook[2, 3].copy(), codebook[0, 0].copy()
    torn = np.array([[0.1, 0.1], [1.0, 1.1], [0.9, 1.2], [0.2, 0.05]] * 4, np.float32)
    som = SOM(3, 4, backend="torch", n_epochs=0, initialization=codebook).fit(torn)
    assert som.topographic_error(torn) == 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_types_and_agreement(backend, x):
    som = small(backend).fit(x)
    assert (som.codebook_.shape, som.codebook_.dtype) == ((4, 3, 6), np.float32)
    assert (som.bmus_.shape, som.bmus_.dtype) == ((300, 2), np.int64)
    assert (som.labels_.dtype, som.history_.shape, som.n_iter_) == (np.int64, (4,), 4)
    np.testing.assert_array_equal(som.labels_, som.predict(x))
    np.testing.assert_array_equal(som.labels_, som.bmus_[:, 0] * 3 + som.bmus_[:, 1])
    distances = np.linalg.norm(x[:, None] - som.codebook_.reshape(-1, 6)[None], axis=2)
    np.testing.assert_allclose(som.transform(x), distances, rtol=1e-4)
    assert som.history_[-1] == pytest.approx(distances.min(axis=1).mean(), rel=1e-4)
    assert som.quantization_error(x) == pytest.approx(distances.min(axis=1).mean(), rel=1e-6)
    assert som.u_matrix().shape == (4, 3)
    assert list(som.get_feature_names_out()[:2]) == ["som0", "som1"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("initialization", ["pca", "random"])
def test_a_seed_gives_one_map(backend, initialization, x):
    first, again = (small(backend, initialization=initialization).fit(x) for _ in range(2))
    np.testing.assert_array_equal(first.codebook_, again.codebook_)
    np.testing.assert_array_equal(first.labels_, again.labels_)
    if initialization == "random":
        other = small(backend, initialization=initialization, random_state=1).fit(x)
        assert not np.allclose(first.codebook_, other.codebook_)


@pytest.mark.parametrize("initialization", ["pca", "random"])
def test_both_backends_start_from_the_same_codebook(initialization, x):
    """To rounding: their rows lie differently in memory, and products add up in another order."""
    starts = [small(b, initialization=initialization, n_epochs=0).fit(x).codebook_ for b in BACKENDS]
    np.testing.assert_allclose(*starts, rtol=1e-6, atol=1e-6)


def test_random_initialization_is_made_of_samples(x):
    codebook = small(initialization="random", n_epochs=0).fit(x).codebook_.reshape(-1, 6)
    nearest = np.abs(codebook[:, None] - x[None]).max(axis=2)
    assert nearest.min(axis=1).max() < 1e-5
    assert len(set(nearest.argmin(axis=1))) == 12


def test_pca_initialization_lies_in_the_principal_plane(x):
    from sklearn.decomposition import PCA

    pca = PCA(2).fit(x)
    codebook = small(n_epochs=0).fit(x).codebook_
    plane = pca.transform(codebook.reshape(-1, 6)).reshape(4, 3, 2)
    away = codebook.reshape(-1, 6) - pca.inverse_transform(plane.reshape(-1, 2))
    assert np.abs(away).max() < 1e-3
    deviation = np.sqrt(pca.explained_variance_)
    np.testing.assert_allclose(np.abs(plane[[0, -1], :, 0]), deviation[0], rtol=1e-2)  # the long side
    np.testing.assert_allclose(np.abs(plane[:, [0, -1], 1]), deviation[1], rtol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_callers_arrays_are_left_alone(backend, order, dtype, x):
    data = np.array(x[::2], dtype, order=order)
    start = np.random.default_rng(1).normal(size=(4, 3, 6))
    kept, kept_start = data.copy(), start.copy()
    som = small(backend, initialization=start).fit(data)
    som.transform(data), som.predict(data), som.topographic_error(data)
    np.testing.assert_array_equal(data, kept)
    np.testing.assert_array_equal(start, kept_start)
    reference = small(backend, initialization=start).fit(np.ascontiguousarray(data, np.float32))
    np.testing.assert_allclose(som.codebook_, reference.codebook_, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_callback_sees_every_epoch(backend, x):
    epochs: list[Epoch] = []
    som = small(backend).fit(x, callback=epochs.append)
    assert [epoch.index for epoch in epochs] == [0, 1, 2, 3, 4]
    assert [epoch.radius for epoch in epochs] == [None, *som.radii_]
    np.testing.assert_allclose([epoch.quantization_error for epoch in epochs[1:]], som.history_)
    np.testing.assert_array_equal(epochs[-1].codebook, som.codebook_)
    np.testing.assert_array_equal(epochs[-1].bmus, som.labels_)
    for epoch in epochs:
        distances = np.linalg.norm(x[:, None] - epoch.codebook.reshape(-1, 6)[None], axis=2)
        assert distances.min(axis=1).mean() == pytest.approx(epoch.quantization_error, rel=1e-4)
        assert (distances.argmin(axis=1) == epoch.bmus).mean() > 0.99


def test_radii_follow_the_schedule(x):
    np.testing.assert_array_equal(small(n_epochs=3, radius0=5).fit(x).radii_, [5, 3, 1])
    np.testing.assert_array_equal(small(n_epochs=1).fit(x).radii_, [1.5])
    np.testing.assert_allclose(
        small(n_epochs=2, radius0=4, radiusN=0.25, radius_cooling="exponential").fit(x).radii_, [4, 1]
    )
    for n_epochs in (20, 50):  # somoclu's float32 schedule misses 1.0 for 32 x 32 and 20, 30 x 30 and 50
        for side in (30, 32):
            assert radii(SOM(side, side, n_epochs=n_epochs))[-1] == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_epoch_is_one_clean_epoch(backend, x):
    som = small(backend, n_epochs=1).fit(x)
    assert np.isfinite(som.codebook_).all()
    assert som.history_.shape == (1,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_offset_loses_nothing(backend, x):
    near, far = (small(backend).fit(x.astype(np.float64) + offset) for offset in (0, 1000))
    np.testing.assert_allclose(far.history_, near.history_, rtol=1e-5)
    np.testing.assert_allclose(far.codebook_ - 1000, near.codebook_, atol=2e-4)
    np.testing.assert_array_equal(far.labels_, near.labels_)
    assert far.quantization_error(x.astype(np.float64) + 1000) == pytest.approx(near.quantization_error(x), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_scales_do_not_matter(backend, scale, x):
    plain, scaled = small(backend).fit(x), small(backend).fit(x * np.float32(scale))
    np.testing.assert_array_equal(plain.labels_, scaled.labels_)
    np.testing.assert_allclose(scaled.history_ / scale, plain.history_, rtol=1e-4)
    np.testing.assert_allclose(scaled.codebook_ / np.float32(scale), plain.codebook_, atol=1e-4)
    np.testing.assert_allclose(scaled.transform(x * np.float32(scale)) / scale, plain.transform(x), rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_features_and_constant_data(backend, x):
    widened = np.column_stack([x, np.full(len(x), 7.0, np.float32)])
    som = small(backend).fit(widened)
    np.testing.assert_allclose(som.codebook_[..., 6], 7.0, rtol=1e-6)
    constant = small(backend).fit(np.full((20, 3), 2.5, np.float32))
    np.testing.assert_array_equal(constant.codebook_, 2.5)
    assert constant.labels_.tolist() == [0] * 20
    assert constant.quantization_error(np.full((2, 3), 2.5)) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1)])
def test_maps_of_one_row_column_or_unit(backend, shape, x):
    som = SOM(*shape, backend=backend, n_epochs=3).fit(x[:, :1])
    assert np.isfinite(som.codebook_).all()
    assert som.u_matrix().shape == shape
    if shape == (1, 1):
        assert som.codebook_[0, 0, 0] == pytest.approx(x[:, 0].mean(), abs=1e-5)
        assert som.topographic_error(x[:, :1]) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_units_than_samples_is_warned_of(backend, x):
    with pytest.warns(UserWarning, match=r"more units \(12\) than the data have samples \(5\)"):
        som = small(backend, initialization="random").fit(x[:5])
    assert np.isfinite(som.codebook_).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([[1.0, np.nan], [0.0, 1.0]], "NaN"),
        ([[1.0, np.inf], [0.0, 1.0]], "infinity"),
        (np.empty((0, 3)), "0 sample"),
        (np.empty((3, 0)), "0 feature"),
        ([1.0, 2.0], "2D array"),
        (np.zeros((2, 2, 2)), "dim 3"),
        ([["a", "b"]], "convert"),
        (np.array([[1e200, 0], [0, 1e200]]), "range of float32"),
    ],
)
def test_bad_data_are_refused(backend, data, message):
    with pytest.raises(ValueError, match=message):
        SOM(1, 2, backend=backend, n_epochs=2).fit(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "minisom"}, r"backend must be one of \['somoclu', 'torch'\], got 'minisom'"),
        ({"kernel": "tpu"}, "kernel must be one of"),
        ({"initialization": "zeros"}, "initialization must be one of"),
        ({"neighborhood": "hat"}, "neighborhood must be one of"),
        ({"radius_cooling": "fast"}, "radius_cooling must be one of"),
        ({"search_dtype": "int4"}, r"search_dtype must be one of \['float32', 'bfloat16', 'int8'\], got 'int4'"),
        ({"search_dtype": "int8", "device": "meta"}, "must be on device='cpu', got device='meta'; 'bfloat16' works"),
        ({"backend": "somoclu", "search_dtype": "bfloat16"}, "must be 'float32' with backend='somoclu'"),
        ({"device": "gpu"}, r"device must be one that torch finds here, got 'gpu' .*set_params\(device='cpu'\)"),
        ({"n_rows": 0}, "n_rows must be an integer of at least 1"),
        ({"n_epochs": -1}, "n_epochs must be an integer of at least 0"),
        ({"n_epochs": 2.0}, "n_epochs must be an integer"),
        ({"radius0": 0}, "radius0 must be a positive finite number, got 0"),
        ({"radiusN": -1.0}, "radiusN must be a positive"),
        ({"std_coeff": np.nan}, "std_coeff must be a positive"),
        ({"working_memory": "1GB"}, "working_memory must be a positive"),
        ({"initialization": np.zeros((3, 4, 6))}, r"shape \(4, 3, 6\), got \(3, 4, 6\)"),
        ({"initialization": np.full((4, 3, 6), np.nan)}, "finite numbers"),
        ({"map_type": "toroid", "grid_type": "hexagonal", "n_rows": 3}, "even number of rows"),
    ],
)
def test_bad_settings_are_refused_in_fit(settings, message, x):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(x)


def test_a_codebook_that_somoclu_takes_for_none(x):
    """somoclu replaces a codebook that begins with 1000, 2000 by random numbers; the adapter must not let it."""
    start = np.zeros((1, 2, 2), np.float32)
    start[0, :, 0], start[0, :, 1] = 1000, 2000
    data = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)
    som = SOM(1, 2, n_epochs=0, initialization=start + np.float32(0.5)).fit(data)
    np.testing.assert_allclose(som.codebook_, start + 0.5, rtol=1e-6)
    assert som.quantization_error(data) == pytest.approx(np.hypot(1000, 2000), rel=1e-3)


def test_somoclu_warns_of_its_hexagons(x):
    with pytest.warns(UserWarning, match="backend='torch' computes them right"):
        small("somoclu", grid_type="hexagonal").fit(x)


def test_a_missing_binary_names_both_remedies(monkeypatch, x):
    import sys

    from nfcodes_lib import _som_somoclu

    monkeypatch.setitem(sys.modules, "somoclu.somoclu_wrap", None)
    _som_somoclu.compiled_train.cache_clear()
    with pytest.raises(ImportError, match=r"python -m nfcodes_lib.somoclu_build cpu.*backend='torch'"):
        small("somoclu").fit(x)
    _som_somoclu.compiled_train.cache_clear()


def test_chunks_give_what_the_whole_gives(x):
    whole, pieces = small().fit(x), small(working_memory=0.005).fit(x)
    np.testing.assert_allclose(pieces.codebook_, whole.codebook_, atol=1e-5)
    np.testing.assert_array_equal(pieces.labels_, whole.labels_)
    np.testing.assert_array_equal(pieces.predict(x), np.concatenate([whole.predict(part) for part in np.split(x, 10)]))
    np.testing.assert_allclose(pieces.transform(x), whole.transform(x), rtol=1e-5)
    assert pieces.topographic_error(x) == whole.topographic_error(x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_save_and_load(backend, x, tmp_path):
    som = small(backend).fit(x)
    path = som.save(tmp_path / "map")
    assert path.name == "map.npz"
    again = SOM.load(path)
    assert again.get_params() == som.get_params()
    for name in ("codebook_", "bmus_", "labels_", "history_", "radii_", "center_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(som, name))
    np.testing.assert_array_equal(again.predict(x), som.labels_)
    assert list(tmp_path.iterdir()) == [path]


def test_feature_names_survive_the_file(x, tmp_path):
    som = small().fit(x)
    som.feature_names_in_ = np.array(list("abcdef"), dtype=object)  # as scikit-learn sets them for a data frame
    again = SOM.load(som.save(tmp_path / "map"))
    assert again.feature_names_in_.tolist() == list("abcdef")
    assert again.feature_names_in_.dtype == object


def test_a_map_from_a_machine_with_another_device(x, tmp_path):
    som = small().fit(x).set_params(device="cuda:99")
    again = SOM.load(som.save(tmp_path / "map"))
    with pytest.raises(ValueError, match="device must be one that torch finds here, got 'cuda:99'"):
        again.predict(x)
    np.testing.assert_array_equal(again.set_params(device="cpu").predict(x), again.labels_)


def test_load_refuses_what_it_cannot_trust(x, tmp_path):
    path = small().fit(x).save(tmp_path / "map.npz")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a map", content[:200] + b"\0" * 400 + content[600:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"expected a map saved by SOM.save in .*map.npz, got"):
            SOM.load(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"members \['weights.npy'\] that no map has"):
        SOM.load(path)
    np.savez(path, header=np.array({"a": 1}, dtype=object))
    with pytest.raises(ValueError, match="expected a map saved by"):
        SOM.load(path)
    with pytest.raises(FileNotFoundError, match="expected a saved map at"):
        SOM.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook": np.zeros((4, 3, 6))}, "'codebook' of dtype float64"),
        ({"codebook": np.zeros((3, 4, 6), np.float32)}, r"\['codebook'\] do not fit a map of 4 x 3"),
        ({"labels": np.full(300, 12)}, r"\['labels'\] do not fit"),
        ({"labels": None}, "no entry 'labels'"),
        ({"history": np.zeros(7)}, r"\['history'\] do not fit"),
        ({"version": 99}, "version 99 where this library reads 1"),
        ({"parameters": {"n_rows": -4}}, "n_rows must be"),
        ({"parameters": {"n_lines": 4}}, "n_lines"),
    ],
)
def test_load_checks_every_entry(change, message, x, tmp_path):
    path = small().fit(x).save(tmp_path / "map.npz")
    with np.load(path) as archive:
        entries = dict(archive)
    header = json.loads(str(entries["header"]))
    for name, value in change.items():
        if name in header:
            header[name] = {**header[name], **value} if isinstance(value, dict) else value
        elif value is None:
            del entries[name]
        else:
            entries[name] = value
    np.savez(path, **{**entries, "header": np.array(json.dumps(header))})
    with pytest.raises(ValueError, match=message):
        SOM.load(path)


def test_a_failed_save_leaves_the_old_file(x, tmp_path, monkeypatch):
    som = small().fit(x)
    path = som.save(tmp_path / "map.npz")
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        som.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saved_files_hold_no_pickle(x, tmp_path):
    path = small(initialization=np.zeros((4, 3, 6)), random_state=np.random.RandomState(3)).fit(x).save(tmp_path / "m")
    assert {"header.npy", "codebook.npy", "initialization.npy"} <= set(zipfile.ZipFile(path).namelist())
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            assert archive[name].dtype.kind in "fiU"
    np.testing.assert_array_equal(SOM.load(path).initialization, np.zeros((4, 3, 6)))
