"""The torch backend against somoclu as pip builds it, epoch by epoch, and both against scikit-learn's own checks.

A near-tie between two units falls by chance of rounding, and one sample that falls the other way moves the codebook
visibly. So the search and the update are compared separately: best-matching units up to ties, and the update fed with
somoclu's own units.
"""

import itertools

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from nfcodes_lib import _som_somoclu, grids
from nfcodes_lib._som_data import CenteredRows, Frame
from nfcodes_lib._som_distributed import Ranks
from nfcodes_lib._som_neighborhood import Neighborhood
from nfcodes_lib._som_search import Int8Product, Search
from nfcodes_lib._som_settings import radii
from nfcodes_lib._som_torch import add_up
from nfcodes_lib._som_workers import Workers
from nfcodes_lib.som import SOM

SHAPE = (12, 9)
VARIANTS = list(itertools.product(grids.MAP_TYPES, ["gaussian", "bubble"], [True, False]))


@pytest.fixture(scope="module")
def x():
    """3,000 x 48: mixed directions of falling variance, like pooled activations; centred."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3000, 48)) @ (rng.normal(size=(48, 48)) * np.linspace(1, 0.1, 48)[:, None])
    return (data - data.mean(axis=0)).astype(np.float32)


def torch_neighborhood(
    shape=SHAPE, *, map_type="planar", grid_type="rectangular", neighborhood="gaussian", compact=True
):
    return Neighborhood(
        shape, map_type=map_type, grid_type=grid_type, function=neighborhood, compact_support=compact, std_coeff=0.5,
        device="cpu",
    )  # fmt: skip


def torch_rows(data):
    frame = Frame(np.zeros(data.shape[1], np.float32))
    return CenteredRows(data, frame, dtype=torch.float32, device="cpu", memory=2**30)


def torch_update(data, codebook, units, radius, neighborhood):
    with Workers(torch.device("cpu")) as workers:
        totals, units = torch.zeros(len(codebook), data.shape[1] + 1), torch.from_numpy(units)
        add_up(totals[:, :-1], torch.from_numpy(data), units, workers)
        totals[:, -1] = torch.bincount(units, minlength=len(codebook))
        return neighborhood.update(torch.from_numpy(codebook), totals, radius, workers).numpy()


@pytest.mark.parametrize(("map_type", "neighborhood", "compact"), VARIANTS)
def test_one_epoch_at_a_time(map_type, neighborhood, compact, x):
    """From somoclu's codebook of each epoch: the same BMUs but for ties, and from these the same next codebook."""
    options = {"map_type": map_type, "neighborhood": neighborhood}
    codebook = SOM(*SHAPE, backend="torch", n_epochs=0, random_state=0).fit(x).codebook_.reshape(-1, 48)
    rule = torch_neighborhood(compact=compact, **options)
    for radius in radii(SOM(*SHAPE, n_epochs=6)):
        _, theirs = _som_somoclu._call(x, codebook, SHAPE, 0, radius, compact_support=compact, **options)
        with Workers(torch.device("cpu")) as workers:
            ours = Search(torch_rows(x), torch.from_numpy(codebook), workers).units[:, 0].numpy()
        for sample in np.flatnonzero(ours != theirs):
            distances = np.linalg.norm(x[sample].astype(np.float64) - codebook[[ours[sample], theirs[sample]]], axis=1)
            assert abs(distances[0] - distances[1]) < 1e-5 * distances.max()
        assert (ours != theirs).mean() < 2e-3
        their_next, _ = _som_somoclu._call(x, codebook, SHAPE, 1, radius, compact_support=compact, **options)
        our_next = torch_update(x, codebook, theirs, radius, rule)
        assert np.abs(our_next - their_next).max() < 5e-5 * np.abs(their_next).max()
        codebook = their_next


@pytest.mark.parametrize(("map_type", "neighborhood", "compact"), VARIANTS)
def test_two_epochs_without_help(map_type, neighborhood, compact, x):
    settings = {"n_epochs": 2, "random_state": 0, "map_type": map_type, "neighborhood": neighborhood}
    maps = [SOM(*SHAPE, backend=b, compact_support=compact, **settings).fit(x) for b in ("somoclu", "torch")]
    theirs, ours = (som.codebook_ for som in maps)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    np.testing.assert_allclose(maps[1].history_, maps[0].history_, rtol=1e-5)


def test_epoch_by_epoch_is_one_call_of_somoclu(x):
    """Driven from Python or run in one call, somoclu gives the same bits (radii 4.5, 3.625, … are exact in float32)."""
    start = SOM(*SHAPE, backend="torch", n_epochs=0, random_state=0).fit(x).codebook_
    driven = SOM(*SHAPE, n_epochs=5, initialization=start).fit(x)
    frame = Frame(driven.center_)
    codebook, bmus = frame.inward(start.reshape(-1, 48)).ravel(), np.zeros(2 * len(x), np.intc)
    _som_somoclu.compiled_train()(
        frame.inward(x).ravel(), 5, 9, 12, 48, len(x), 4.5, 1.0, "linear", 1.0, 1.0, "linear", 0, "planar",
        "rectangular", True, True, 0.5, 0, codebook, bmus, np.zeros(108, np.float32), "euclidean",
    )  # fmt: skip
    np.testing.assert_array_equal(driven.codebook_.reshape(-1, 48), frame.outward(codebook.reshape(-1, 48)))
    np.testing.assert_array_equal(driven.bmus_, bmus.reshape(-1, 2)[:, ::-1])


def test_the_last_radius_keeps_its_neighbours():
    """On 32 x 32 units and 20 epochs a whole run of somoclu can end below radius 1; ours end at it."""
    last = radii(SOM(32, 32, n_epochs=20))[-1]
    difference = np.float32(16 - 1) / np.float32(19)
    assert np.float32(16) - np.float32(19) * difference < 1  # what somoclu's float32 schedule makes of the last epoch
    assert last == 1.0
    weights = torch_neighborhood((32, 32), neighborhood="bubble").weights(last)
    assert weights.sum() == 5  # the unit itself and its four direct neighbours


def test_u_matrix_is_somoclus():
    codebook = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    for map_type in grids.MAP_TYPES:
        theirs = np.zeros(35, np.float32)
        _som_somoclu.compiled_train()(
            np.zeros(3, np.float32), 0, 5, 7, 3, 1, 1.0, 1.0, "exponential", 1.0, 1.0, "exponential", 0, map_type,
            "rectangular", True, True, 0.5, 0, codebook.ravel().copy(), np.zeros(2, np.intc), theirs, "euclidean",
        )  # fmt: skip
        np.testing.assert_allclose(grids.u_matrix(codebook, map_type=map_type), theirs.reshape(7, 5), rtol=1e-5)


@pytest.mark.parametrize("grid_type", grids.GRID_TYPES)
@pytest.mark.parametrize("map_type", grids.MAP_TYPES)
@pytest.mark.parametrize(("function", "compact"), [("gaussian", True), ("gaussian", False), ("bubble", True)])
def test_the_shortcuts_are_the_neighbourhood_matrix(grid_type, map_type, function, compact):
    """By axes, by matrix and by transform: all give the product with the matrix built from pairwise distances."""
    shape, rng = (8, 7), np.random.default_rng(0)
    rule = torch_neighborhood(shape, map_type=map_type, grid_type=grid_type, neighborhood=function, compact=compact)
    values = torch.from_numpy(rng.normal(size=(8, 7, 5)).astype(np.float32))
    units = np.arange(56)
    distances = grids.grid_distance(units[:, None], units[None], *shape, map_type=map_type, grid_type=grid_type)
    for radius in (1.0, 2.5, 4.0):
        matrix = np.exp(-2 * distances**2 / radius**2) if function == "gaussian" else np.ones((56, 56))
        if compact:
            matrix = matrix * (distances <= radius + 1e-9)
        expected = (matrix @ values.reshape(56, 5).double().numpy()).reshape(8, 7, 5)
        weights = rule.weights(radius)
        with Workers(torch.device("cpu")) as workers:
            ways = [rule._by_matrix(weights, values, radius, workers), rule._by_transform(weights, values, workers)]
        if rule.separable:
            ways.append(rule._by_axes(weights, values))
        for smooth in ways:
            np.testing.assert_allclose(smooth.numpy(), expected, atol=2e-5)


def test_large_maps_take_the_transform_and_agree(x, monkeypatch):
    from nfcodes_lib import _som_neighborhood

    settings = {"backend": "torch", "n_epochs": 3, "random_state": 0}
    by_matrix = SOM(*SHAPE, **settings).fit(x)
    monkeypatch.setattr(_som_neighborhood, "LARGE_MAP", 1)
    monkeypatch.setattr(Neighborhood, "_by_matrix", None)
    by_transform = SOM(*SHAPE, **settings).fit(x)
    np.testing.assert_allclose(by_transform.codebook_, by_matrix.codebook_, atol=1e-4 * np.abs(x).max())


def test_units_out_of_reach_keep_their_vector():
    start = np.arange(12, dtype=np.float32).reshape(1, 12, 1) * 10
    data = np.array([[0.1], [0.2], [9.0]], np.float32)
    for backend in ("somoclu", "torch"):
        som = SOM(1, 12, backend=backend, n_epochs=1, radius0=1.0, initialization=start).fit(data)
        np.testing.assert_allclose(som.codebook_[0, 3:, 0], start[0, 3:, 0], atol=1e-5)
        assert som.codebook_[0, 0, 0] != 0


def test_whole_runs_agree_within_the_spread_of_seeds(x):
    """Six random starts each: errors of the backends differ by less than somoclu's own seeds do."""
    seeds = range(6)
    measured = {}
    for backend in ("somoclu", "torch"):
        maps = [
            SOM(8, 6, backend=backend, n_epochs=6, initialization="random", random_state=seed).fit(x[:1500])
            for seed in seeds
        ]
        measured[backend] = np.array([(som.quantization_error(x), som.topographic_error(x)) for som in maps])
    gap = np.abs(measured["somoclu"].mean(axis=0) - measured["torch"].mean(axis=0))
    assert (gap <= measured["somoclu"].std(axis=0, ddof=1)).all(), (gap, measured)
    assert gap[0] < 0.002 * measured["somoclu"][:, 0].mean()


@pytest.mark.parametrize("search_dtype", ["bfloat16", "int8"])
def test_lower_precision_search_costs_little(search_dtype, x, monkeypatch):
    """The quantization error within 0.3 %, and the final BMUs exact for the final codebook."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})  # slow without, but as exact
    full, low = (
        SOM(*SHAPE, backend="torch", n_epochs=8, random_state=0, search_dtype=dtype).fit(x)
        for dtype in ("float32", search_dtype)
    )
    assert (low.codebook_ != full.codebook_).any()
    assert low.quantization_error(x) == pytest.approx(full.quantization_error(x), rel=0.003)
    np.testing.assert_allclose(low.history_, full.history_, rtol=0.01)
    np.testing.assert_array_equal(low.labels_, low.predict(x))


def test_lower_precision_costs_little_where_units_hardly_differ():
    """Noise in 256 dimensions around 20 centres: within a cluster the units' scores agree in their first 8 bits."""
    rng = np.random.default_rng(0)
    data = 2 * rng.normal(size=(20, 256))[rng.integers(0, 20, 1500)] + rng.normal(size=(1500, 256))
    settings = {"backend": "torch", "n_epochs": 8, "initialization": "random"}
    errors = {
        dtype: [
            SOM(10, 10, random_state=seed, search_dtype=dtype, **settings).fit(data).history_[-1] for seed in range(5)
        ]
        for dtype in ("float32", "bfloat16", "int8")
    }
    assert np.mean(errors["bfloat16"]) < 1.003 * np.mean(errors["float32"])
    assert np.mean(errors["int8"]) < 1.003 * np.mean(errors["float32"])


@pytest.mark.parametrize(
    ("n_samples", "n_features", "n_units"), [(1, 1, 1), (3, 7, 2), (700, 33, 129), (513, 128, 400)]
)
def test_int8_search_is_exact_for_whole_numbers(n_samples, n_features, n_units):
    """Data and codebook that 8 bits can hold: the scores are whole halves, so units and scores are those of float64."""
    rng = np.random.default_rng(n_samples)
    data = rng.integers(-127, 128, (n_samples, n_features)).astype(np.float32)
    codebook = 2.0 * rng.integers(-63, 64, (n_units, n_features)).astype(np.float32)
    data[0, 0], codebook[0, 0] = 127, 254  # steps of 1 and 2
    exact = (codebook.astype(np.float64) ** 2).sum(axis=1) / 2 - data.astype(np.float64) @ codebook.T
    frame = Frame(np.zeros(n_features, np.float32), reach=127.0)
    for memory in (2**30, 2**14):  # kept whole, and a few rows at a time
        rows = CenteredRows(data, frame, dtype=torch.float32, device="cpu", memory=memory, int8=True)
        with Workers(torch.device("cpu")) as workers:
            search = Search(rows, torch.from_numpy(codebook), workers, low=torch.int8)
        assert isinstance(search._product, Int8Product)
        np.testing.assert_array_equal(search.units[:, 0].numpy(), exact.argmin(axis=1))
        np.testing.assert_allclose(search.scores.numpy(), exact.min(axis=1), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:search_dtype='int8' is not used, but 'float32'. this processor")
def test_int8_search_gives_way_where_it_would_be_wrong(x):
    """To float32: for a codebook far from the data, for constant data, and where a few values hide all others."""
    settings = {"backend": "torch", "n_epochs": 5, "random_state": 0}
    far = 1e6 + np.random.default_rng(0).normal(size=(4, 3, 48))
    for data, start in ((x, far), (np.ones((50, 4)), "pca")):
        full, low = (
            SOM(4, 3, initialization=start, search_dtype=dtype, **settings).fit(data) for dtype in ("float32", "int8")
        )
        assert low.quantization_error(data) == pytest.approx(full.quantization_error(data), rel=0.003, abs=1e-6)
    data = x.copy()
    data[0] *= 10_000
    full = SOM(4, 3, **settings).fit(data)
    with pytest.warns(UserWarning, match="search_dtype='int8' is not used.*scale the features, or use 'bfloat16'"):
        low = SOM(4, 3, search_dtype="int8", **settings).fit(data)
    np.testing.assert_array_equal(low.codebook_, full.codebook_)


def test_int8_is_not_used_where_the_processor_cannot(x, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    settings = {"backend": "torch", "n_epochs": 4, "random_state": 0}
    with pytest.warns(UserWarning, match="no instruction for products of 8-bit numbers"):
        low = SOM(4, 3, search_dtype="int8", **settings).fit(x)
    np.testing.assert_array_equal(low.codebook_, SOM(4, 3, **settings).fit(x).codebook_)


def test_hexagonal_maps_are_hexagonal(x):
    """After an epoch with a bubble of radius 1, each vector is the mean over its own and six neighbours' samples."""
    start = SOM(6, 5, backend="torch", grid_type="hexagonal", n_epochs=0, random_state=0).fit(x)
    som = SOM(
        6, 5, backend="torch", grid_type="hexagonal", neighborhood="bubble", n_epochs=1, radius0=1.0,
        initialization=start.codebook_,
    ).fit(x)  # fmt: skip
    around = grids.neighbors(6, 5, grid_type="hexagonal")
    for unit in range(30):
        members = np.isin(start.labels_, [unit, *around[unit][around[unit] >= 0]])
        np.testing.assert_allclose(som.codebook_.reshape(-1, 48)[unit], x[members].mean(axis=0), atol=1e-4)


@parametrize_with_checks([SOM(5, 4, backend=backend, n_epochs=3, random_state=0) for backend in ("somoclu", "torch")])
def test_scikit_learn_checks(estimator, check):
    """All of them; scikit-learn itself skips only its array-API check, unless SCIPY_ARRAY_API is set."""
    check(estimator)


@pytest.mark.parametrize("backend", ["somoclu", "torch"])
def test_pipeline_clone_and_grid_search(backend, x):
    som = SOM(4, 4, backend=backend, n_epochs=2, random_state=0)
    pipeline = make_pipeline(StandardScaler(), som).fit(x[:300])
    assert pipeline.predict(x[:5]).shape == (5,)
    assert pipeline.transform(x[:5]).shape == (5, 16)
    assert clone(som).get_params() == som.get_params()
    assert not hasattr(clone(pipeline[-1]), "codebook_")
    search = GridSearchCV(som, {"n_rows": [2, 6], "n_columns": [3, 5]}, cv=3).fit(x[:300])
    assert search.best_params_ == {"n_rows": 6, "n_columns": 5}
    assert search.best_score_ < 0


@pytest.mark.gpu
def test_gpu_kernel_of_somoclu(x):
    """CPU and GPU kernel: errors within 1 %, and at least 99 % of the BMUs from one codebook."""
    problem = _som_somoclu.gpu_problem()
    if problem:
        pytest.skip(f"somoclu's GPU kernel does not work here: {problem}")
    cpu, gpu = (SOM(20, 20, kernel=kernel, n_epochs=10, random_state=0).fit(x) for kernel in ("cpu", "gpu"))
    assert gpu.quantization_error(x) == pytest.approx(cpu.quantization_error(x), rel=0.01)
    start = cpu.codebook_.reshape(-1, 48)
    _, by_cpu = _som_somoclu._call(x, start, (20, 20), 0, 1.0, kernel="cpu")
    _, by_gpu = _som_somoclu._call(x, start, (20, 20), 0, 1.0, kernel="gpu")
    assert (by_cpu == by_gpu).mean() >= 0.99


@pytest.mark.gpu
def test_torch_on_a_gpu_gives_the_map_of_the_cpu(x):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    cpu, gpu = (SOM(*SHAPE, backend="torch", device=d, n_epochs=2, random_state=0).fit(x) for d in ("cpu", "cuda"))
    assert np.abs(gpu.codebook_ - cpu.codebook_).max() < 1e-4 * np.abs(cpu.codebook_).max()
    assert (gpu.predict(x) == cpu.predict(x)).mean() >= 0.999


def test_a_gpu_kernel_that_is_not_there_is_explained(x):
    if _som_somoclu.gpu_problem() is None:
        pytest.skip("somoclu's GPU kernel works here")
    with pytest.raises(RuntimeError, match=r"make gpu.*kernel='cpu'.*backend='torch'"):
        SOM(3, 3, kernel="gpu", n_epochs=1).fit(x[:50])
    assert _som_somoclu.choose_kernel("auto") == "cpu"


def test_ranks_without_a_process_group_are_one():
    ranks = Ranks()
    assert (ranks.size, ranks.rank, ranks.counts(7)) == (1, 0, [7])
