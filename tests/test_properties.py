"""Properties that hold for all shapes, scales and batch sizes: capture, pooling, saving, positions, maps."""

import warnings

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.pooling import pool_maps

RUNS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SIZES = st.integers(1, 7)
SHAPES = st.tuples(SIZES, st.integers(1, 4), st.integers(2, 6), st.integers(2, 6))  # n, channels, height, width
SEEDS = st.integers(0, 2**16)


def images_of(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear_net(n_channels, seed):
    """Without a bias or a batch norm, so twice the image gives twice the codes."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(n_channels, 3, 2, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return net.append(nn.Linear(3, 2, bias=False))


@RUNS
@given(SHAPES, st.integers(1, 9), st.sampled_from(["mean", "max", "none", "spatial", 1]), SEEDS)
def test_capture_is_the_pooled_activation_in_any_batches(shape, batch_size, pool, seed):
    net, images = linear_net(shape[1], seed), images_of(shape, seed)
    codes = nf.capture(net, images, layers=["0", "1"], pool=pool, batch_size=batch_size, progress=False)
    with torch.no_grad():
        expected = net[0](images)
    np.testing.assert_allclose(codes["0"], pool_maps(expected, pool), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codes["1"], pool_maps(expected.relu(), pool), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codes.logits, net(images).detach(), rtol=1e-4, atol=1e-5)


@RUNS
@given(SHAPES, st.integers(-40, 40), SEEDS)
def test_codes_scale_with_the_image(shape, exponent, seed):
    """By a power of two exactly, over 24 orders of magnitude."""
    net, images = linear_net(shape[1], seed), images_of(shape, seed)
    plain, scaled = (nf.capture(net, x, layers="1", progress=False)["1"] for x in (images, images * 2.0**exponent))
    np.testing.assert_array_equal(scaled, plain * np.float32(2.0**exponent))


@RUNS
@given(SHAPES, SEEDS)
def test_order_of_images_is_kept(shape, seed):
    net, images = linear_net(shape[1], seed), images_of(shape, seed)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    codes, shuffled = (nf.capture(net, x, layers="0", progress=False)["0"] for x in (images, images[order]))
    order = order.numpy()
    np.testing.assert_allclose(shuffled, codes[order], rtol=1e-5, atol=1e-6)


@RUNS
@given(SHAPES, SEEDS)
def test_spatial_codes_have_the_mean_of_the_pooled_ones(shape, seed):
    """Every position is a row: their mean over an image is its pooled code, and positions() tells them apart."""
    net, images = linear_net(shape[1], seed), images_of(shape, seed)
    spatial = nf.capture(net, images, layers="0", pool="spatial", progress=False)
    mean = nf.capture(net, images, layers="0", progress=False)["0"]
    where = spatial.positions("0")
    assert len({tuple(row) for row in where.tolist()}) == len(spatial["0"])
    for image in range(len(images)):
        rows = spatial["0"][where[:, 0] == image]
        assert len(rows) == (shape[2] - 1) * (shape[3] - 1)
        np.testing.assert_allclose(rows.mean(0), mean[image], rtol=1e-4, atol=1e-5)


@RUNS
@given(
    st.integers(1, 9),
    st.lists(
        st.tuples(st.text(max_size=20), st.integers(1, 5)), min_size=1, max_size=4, unique_by=lambda pair: pair[0]
    ),
    st.booleans(),
    SEEDS,
)
def test_codes_come_back_from_disk(tmp_path_factory, n, layers, has_logits, seed):
    """Whatever a layer is called: slashes, dots, emoji, nothing."""
    folder = tmp_path_factory.mktemp("codes")
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(n, width)).astype(np.float32) for name, width in layers if name != "logits.npy"}
    shapes = {name: (array.shape[1], 2, 2) for name, array in arrays.items()}
    logits = rng.normal(size=(n, 3)).astype(np.float32) if has_logits else None
    if not arrays:
        return
    codes = nf.LayerCodes(arrays, logits, shapes, "mean", "bfloat16", "a family: its parts")
    codes.save(folder / "codes")
    found = nf.LayerCodes.load(folder / "codes")
    assert (found.layers, found.shapes, found.pool) == (codes.layers, codes.shapes, codes.pool)
    assert (found.precision, found.chosen) == (codes.precision, codes.chosen)
    for name in arrays:
        np.testing.assert_array_equal(found[name], arrays[name])
    np.testing.assert_array_equal(found.logits, logits) if has_logits else None
    assert [path.name for path in folder.iterdir()] == ["codes"]


@RUNS
@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 30), st.integers(1, 6), st.integers(-60, 60), SEEDS)
def test_a_map_scales_with_its_data(n_rows, n_columns, n, n_features, exponent, seed):
    """Same winners, codebook and errors times the scale, from 1e-18 to 1e18."""
    x = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    scale = np.float32(2.0**exponent)
    arguments = {"backend": "torch", "n_epochs": 2, "random_state": 0, "initialization": "random"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more units than samples
        plain, scaled = (nf.SOM(n_rows, n_columns, **arguments).fit(data) for data in (x, x * scale))
    np.testing.assert_array_equal(plain.labels_, scaled.labels_)
    np.testing.assert_allclose(scaled.codebook_ / scale, plain.codebook_, rtol=1e-4, atol=1e-5)
    assert np.isclose(scaled.quantization_error(x * scale) / scale, plain.quantization_error(x), rtol=1e-3, atol=1e-5)
