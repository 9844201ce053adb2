"""The trace: known paths on a network set by hand, equal noise, invariants, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.adversarial import trace_attack
from nfcodes_lib.codes import code_table
from nfcodes_lib.som import SOM
from nfcodes_lib.traces import bootstrap_interval, transition_matrix

LAYERS = ("layer1", "layer3", "layer4")


@pytest.fixture(scope="module")
def sample():
    return nf.load_images("test", n_samples=30, random_state=2)


@pytest.fixture(scope="module")
def maps():
    """Small maps and code tables of the trained network, from training images."""
    model = nf.load_model("resnet")
    codes = nf.capture(model, nf.load_images("train", n_samples=300)[0], layers=LAYERS)
    soms = {layer: SOM(4, 5, backend="torch", n_epochs=6, random_state=0).fit(codes[layer]) for layer in LAYERS}
    tables = {
        layer: code_table(soms[layer].predict(codes[layer]), codes.predictions, n_units=20, n_outputs=10)
        for layer in LAYERS
    }
    return soms, tables


@pytest.fixture(scope="module")
def trace(maps, sample):
    soms, tables = maps
    model = nf.load_model("resnet")
    return trace_attack(
        model, *sample, soms, epsilons=[0, 2 / 255, 16 / 255], tables=tables, steps=8, batch_size=16, progress=False
    )


class HandSet(nn.Module):
    """On one-pixel images: `first` gives (x, 1 - x), `second` swaps them, the logits are 10 times that."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(1, 2), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            self.first.bias.copy_(torch.tensor([0.0, 1.0]))
            self.second.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))

    def forward(self, x):
        return 10 * self.second(self.first(x.flatten(1)))


def row_of_units(values):
    """A map of one row whose units lie on the line from (0, 1) to (1, 0), at the given first coordinates."""
    codebook = np.array([[[v, 1 - v] for v in values]], np.float32)
    data = codebook[0]
    return SOM(1, len(values), backend="torch", n_epochs=0, initialization=codebook).fit(data)


def brighter(model, images, labels, epsilon):
    return (images + epsilon).clamp(0, 1)


def test_a_trace_by_hand():
    model = HandSet().eval()
    images = torch.tensor([0.1, 0.4, 0.8]).reshape(3, 1, 1, 1)
    labels = torch.tensor([0, 0, 0])  # the third is answered 1 when clean, so it is not traced
    soms = {"first": row_of_units([0.0, 0.25, 0.5, 0.75, 1.0]), "second": row_of_units([0.0, 0.5, 1.0])}
    # outputs of the units, by hand: "first" turns at 0.5; in "second" the coordinates are swapped
    tables = {
        "first": code_table([0, 1, 2, 3, 4], [0, 0, 1, 1, 1], n_units=5),
        "second": code_table([0, 1, 2], [1, 0, 0], n_units=3),
    }
    trace = trace_attack(model, images, labels, soms, epsilons=[0, 0.2, 0.8], attack=brighter, tables=tables)
    assert trace.index.tolist() == [0, 1]
    assert trace.accuracy == pytest.approx(2 / 3)
    # pixels: 0.1 -> 0.1, 0.3, 0.9 and 0.4 -> 0.4, 0.6, 1.0
    assert trace.clean_units.tolist() == [[0, 2], [2, 1]]
    assert trace.paths.units.tolist() == [[[0, 2], [2, 1]], [[1, 2], [1, 1]], [[4, 4], [0, 0]]]
    assert trace.paths.success.tolist() == [[False, False], [False, True], [True, True]]
    assert trace.success.tolist() == [0, 0.5, 1]
    assert trace.paths.grid_distance[2].tolist() == [[4, 2], [2, 1]]
    assert trace.grid_distance[2].tolist() == [3, 1.5]
    assert trace.bmu_changed.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]
    np.testing.assert_allclose(trace.paths.l2_norm, [[0, 0], [0.2, 0.2], [0.8, 0.6]], atol=1e-6)
    before, after = np.array([0.1, 0.9]), np.array([0.9, 0.1])
    relative = np.linalg.norm(after - before) / np.linalg.norm(before)
    cosine = 1 - before @ after / (before @ before)
    np.testing.assert_allclose(trace.paths.relative_change[2, :, 0], relative, rtol=1e-5)
    np.testing.assert_allclose(trace.paths.cosine_change[2, :, 0], cosine, rtol=1e-5)
    np.testing.assert_allclose(trace.paths.code_change, trace.paths.relative_change, rtol=1e-6)
    np.testing.assert_allclose(trace.paths.quantization_error[1, 0], [0.05 * 2**0.5, 0.1 * 2**0.5], rtol=1e-4)
    assert trace.clean_regions.tolist() == [[0, 1], [0, 0]]
    assert trace.paths.regions[2].tolist() == [[1, 1], [1, 1]]
    assert trace.paths.parting_layer.tolist() == [[2, 2], [0, 2], [0, 0]]
    # at 0.2 the second image is answered 1, but its last unit stands for 0; at 0.8 both paths are in the region of 1
    assert trace.paths.entry_layer.tolist() == [[-1, -1], [-1, 2], [0, 0]]
    assert np.isnan(trace.entered[0]).all()
    assert trace.entered[1:].tolist() == [[0, 0], [1, 1]]
    assert trace.parted.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]
    assert transition_matrix(trace, "second", 0.8).tolist() == [[0, 2], [0, 0]]
    assert transition_matrix(trace, "first", 0.2).tolist() == [[1, 0], [0, 1]]


def test_shapes_and_ranges(trace, sample):
    n = len(trace.index)
    assert trace.layers == LAYERS
    assert trace.epsilons.tolist() == [0, 2 / 255, 16 / 255]
    assert 20 <= n <= 30
    assert trace.accuracy == n / 30
    assert (trace.labels == sample[1].numpy()[trace.index]).all()
    for name in ("relative_change", "cosine_change", "code_change", "bmu_changed", "grid_distance", "parted"):
        for kind in (trace, trace.noise):
            assert getattr(kind, name).shape == (3, 3)
            assert (getattr(kind, name)[0] < 1e-5).all()  # equal images in other memory: equal up to rounding
            assert np.isfinite(getattr(kind, name)).all()
    assert (trace.paths.units[0] == trace.clean_units).all()
    assert (trace.paths.predictions[0] == trace.labels).all()
    np.testing.assert_allclose(trace.paths.quantization_error[0], trace.clean_quantization_error, rtol=1e-4)
    assert (trace.paths.cosine_change <= 2 + 1e-6).all()


def test_an_attack_moves_activations_further_than_noise_of_the_same_length(trace):
    np.testing.assert_allclose(trace.noise.paths.l2_norm, trace.paths.l2_norm, rtol=1e-4, atol=1e-5)
    assert (trace.paths.linf_norm <= trace.epsilons[:, None] + 1e-6).all()
    assert trace.success[2] > 0.9 > 0.1 > trace.noise.success[1]
    assert (trace.relative_change[1:, 1:] > trace.noise.relative_change[1:, 1:]).all()
    assert trace.bmu_changed[2, 2] > trace.noise.bmu_changed[2, 2]


def test_measures_are_those_of_a_second_capture(maps, sample, trace):
    """Recompute one budget from the attacked images, through capture and the maps."""
    soms, tables = maps
    model = nf.load_model("resnet")
    images, labels = (each[trace.index] for each in sample)
    attacked = nf.attacks.attack_images(model, images, labels, epsilons=trace.epsilons, steps=8, batch_size=16)
    clean, moved = (nf.capture(model, x, layers=LAYERS) for x in (images, attacked.images[2]))
    whole, moved_whole = (nf.capture(model, x, layers=LAYERS, pool="none") for x in (images, attacked.images[2]))
    assert (moved.predictions == trace.paths.predictions[2]).all()
    for i, layer in enumerate(LAYERS):
        units = soms[layer].predict(moved[layer])
        assert (units == trace.paths.units[2, i]).mean() > 0.95
        error = soms[layer].transform(moved[layer]).min(1)
        np.testing.assert_allclose(error, trace.paths.quantization_error[2, i], rtol=1e-2, atol=1e-3)
        assert (tables[layer].majority[trace.paths.units[2, i]] == trace.paths.regions[2, i]).all()
        for a, b, name in [(whole, moved_whole, "relative_change"), (clean, moved, "code_change")]:
            change = np.linalg.norm(b[layer] - a[layer], axis=1) / np.linalg.norm(a[layer], axis=1)
            np.testing.assert_allclose(change, getattr(trace.paths, name)[2, i], rtol=1e-3, atol=1e-5)
        dots = (whole[layer] * moved_whole[layer]).sum(1)
        cosine = 1 - dots / np.linalg.norm(whole[layer], axis=1) / np.linalg.norm(moved_whole[layer], axis=1)
        np.testing.assert_allclose(cosine, trace.paths.cosine_change[2, i], rtol=1e-2, atol=1e-5)


def test_equal_seeds_give_equal_traces(maps, sample):
    soms, _ = maps
    model = nf.load_model("resnet")

    def run(seed):
        return trace_attack(model, *sample, soms, epsilons=[4 / 255], steps=3, random_state=seed)

    first, again, other = run(0), run(0), run(1)
    for name in ("units", "relative_change", "l2_norm"):
        for one, two in [(first, again), (first.noise, again.noise)]:
            assert np.array_equal(getattr(one.paths, name), getattr(two.paths, name))
    assert not np.array_equal(first.paths.relative_change, other.paths.relative_change)
    assert not np.array_equal(first.noise.paths.relative_change, other.noise.paths.relative_change)


def test_the_model_is_left_as_it_was_and_hooks_come_off(maps, sample):
    soms, _ = maps
    model = nf.load_model("resnet")
    before = copy.deepcopy(model.state_dict())

    def failing(model, images, labels, epsilon):
        raise RuntimeError("no attack")

    with pytest.raises(RuntimeError, match="no attack"):
        trace_attack(model, *sample, soms, epsilons=[0.1], attack=failing)
    trace_attack(model, *sample, soms, epsilons=[0.1], steps=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module.training for module in model.modules())


def test_targets_are_traced_where_they_are_another_class(maps, sample):
    soms, tables = maps
    targets = torch.full((30,), 6)
    trace = trace_attack(
        nf.load_model("resnet"), *sample, soms, epsilons=[0.2], targets=targets, tables=tables, norm="linf", steps=15
    )
    assert 6 not in trace.labels
    assert trace.success[0] > 0.8
    assert (trace.paths.predictions[0][trace.paths.success[0]] == 6).all()
    assert trace.entered[0, -1] > 0.5


def test_l2_attacks_are_traced_too(maps, sample):
    trace = trace_attack(
        nf.load_model("resnet"), *sample, maps[0], epsilons=[0.1, 2.0], norm="l2", attack="minimum-norm", steps=20
    )
    assert trace.success[1] == 1
    assert (trace.paths.l2_norm[1] < 2).all()  # it stops where the answer changes
    np.testing.assert_allclose(trace.noise.paths.l2_norm, trace.paths.l2_norm, rtol=1e-4)


def test_kmeans_of_equal_size_serves_as_control(sample):
    model = nf.load_model("resnet")
    codes = nf.capture(model, sample[0], layers="layer4")
    control = {"layer4": KMeans(5, n_init=1, random_state=0).fit(codes["layer4"])}
    trace = trace_attack(model, *sample, control, epsilons=[0, 0.1], steps=3)
    assert trace.bmu_changed[1, 0] > 0
    assert np.isnan(trace.grid_distance).all()


def test_intervals_hold_their_average(trace):
    for name in ("success", "bmu_changed", "parted", "entered", "relative_change", "grid_distance"):
        for kind in (trace, trace.noise):
            low, high = kind.interval(name)
            average = getattr(kind, name)
            known = np.isfinite(average)
            assert low.shape == high.shape == average.shape
            assert (low[known] <= average[known] + 1e-12).all()
            assert (average[known] <= high[known] + 1e-12).all()
    low, high = trace.interval("success")
    assert 0.05 < high[0] < 0.2  # Wilson: no success among about thirty does not mean zero
    narrow = trace.interval("relative_change", confidence=0.5)
    wide = trace.interval("relative_change")
    assert (narrow[1] - narrow[0] < wide[1] - wide[0])[1:].all()
    with pytest.raises(ValueError, match=r"measure must be one of .* did you mean 'success'"):
        trace.interval("sucess")


def test_bootstrap_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).normal(size=(2, 400))
    low, high = bootstrap_interval(values)
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std(1) / 20, rtol=0.1)


def test_transitions_count_every_image(trace):
    for layer in LAYERS:
        matrix = transition_matrix(trace, layer, 16 / 255, n_classes=10)
        assert matrix.shape == (10, 10)
        assert matrix.sum() == len(trace.index)
    still = transition_matrix(trace, "layer4", 0, n_classes=10)
    assert still.sum() == np.trace(still)
    noisy = transition_matrix(trace, "layer4", 16 / 255, noise=True, n_classes=10)
    assert np.trace(noisy) > np.trace(matrix)


def test_questions_that_the_trace_cannot_answer_are_refused(maps, sample, trace):
    with pytest.raises(ValueError, match=r"epsilon must be one of \[0.0, 0.00784, 0.06275\], got 0.5"):
        transition_matrix(trace, "layer4", 0.5)
    with pytest.raises(ValueError, match="got 'layer2'; did you mean 'layer"):
        transition_matrix(trace, "layer2", 0)
    bare = trace_attack(nf.load_model("resnet"), *sample, maps[0], epsilons=[0])
    assert np.isnan(bare.entered).all()
    with pytest.raises(ValueError, match="without; pass tables= to trace_attack"):
        transition_matrix(bare, "layer4", 0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pool": "none"}, r"map of 'layer1' expects codes of 16 features, got 12544; pass the pool"),
        ({"pool": "spatial"}, "pool must give one code per image"),
        ({"tables": {}}, r"tables must have one code table for each layer of soms, got none for \['layer1'"),
        ({"soms": {"layer9": None}}, "did you mean 'layer"),
        ({"soms": {"layer1": SOM(2, 2)}}, "map of 'layer1' must be fitted"),
        ({"epsilons": [1, 0.5]}, "epsilons must increase"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(maps, sample, options, match):
    options = {"soms": maps[0], "epsilons": [0.1], "steps": 1} | options
    with pytest.raises(ValueError, match=match):
        trace_attack(nf.load_model("resnet"), *sample, options.pop("soms"), **options)


def test_a_table_of_another_map_is_refused(maps, sample):
    soms, tables = maps
    other = {layer: code_table([0], [0], n_units=7) for layer in tables}
    with pytest.raises(ValueError, match="table of 'layer1' must have n_units=20 as its map, got 7"):
        trace_attack(nf.load_model("resnet"), *sample, soms, epsilons=[0], tables=other)


def test_a_model_that_knows_nothing_is_refused(maps, sample):
    model = nf.load_model("resnet")
    wrong = (torch.tensor(nf.capture(model, sample[0], layers="head").predictions) + 1) % 10
    with pytest.raises(ValueError, match="answers correctly, got none among 30"):
        trace_attack(model, sample[0], wrong, maps[0], epsilons=[0])


def test_train_mode_is_refused_here_too(maps, sample):
    with pytest.raises(ValueError, match="must be in eval mode"):
        trace_attack(nf.load_model("resnet").train(), *sample, maps[0], epsilons=[0])
