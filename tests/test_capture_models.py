"""capture on what readers bring: wrapped, compiled and half-precision models, tokens, tuples, no logits."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib._forward_pass import ForwardPass, conv_norm_pairs
from nfcodes_lib.pooling import only_tensor, pool_maps

LAYERS = ["layer1", "layer4"]


@pytest.fixture(scope="module")
def few():
    return nf.load_images("test", n_samples=12)[0]


@pytest.fixture(scope="module")
def expected(resnet, few):
    """One batch, which runs without folding."""
    return nf.capture(resnet, few, layers=LAYERS)


def assert_close(codes, expected, rtol=1e-4):
    for layer in expected:
        scale = np.abs(expected[layer]).max()
        np.testing.assert_allclose(codes[layer], expected[layer], rtol=rtol, atol=rtol * scale)


# --- wrappers


def test_data_parallel_is_read_through(resnet, few, expected):
    wrapped = nn.DataParallel(resnet)
    assert_close(nf.capture(wrapped, few, layers=LAYERS), expected)
    codes = nf.capture(wrapped, few, layers=["module.layer1", "module.layer4"])
    assert list(codes) == ["module.layer1", "module.layer4"], "the names of either are understood"
    np.testing.assert_array_equal(codes["module.layer4"], expected["layer4"])
    assert next(iter(nf.capture(wrapped, few, layers="auto"))) == "module.layer1"


def compiled(model, how):
    if how == "torch.compile":
        return torch.compile(model, backend="eager")
    if how == "model.compile":
        model.compile(backend="eager")
    else:
        model.layer4 = torch.compile(model.layer4, backend="eager")
    return model


@pytest.mark.parametrize("how", ["torch.compile", "model.compile", "a layer compiled"])
def test_compiled_modules_are_read_uncompiled(resnet, few, expected, how):
    """Already compiled code would run without seeing our hooks."""
    model = compiled(copy.deepcopy(resnet), how)
    with torch.no_grad():
        model(few)
    assert_close(nf.capture(model, few, layers=LAYERS), expected)


# --- dtypes and memory formats


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_model_of_any_float_dtype(resnet, few, expected, dtype, rtol):
    codes = nf.capture(copy.deepcopy(resnet).to(dtype), few, layers=LAYERS, batch_size=6)
    assert codes["layer4"].dtype == codes.logits.dtype == np.float32
    assert codes.precision == str(dtype).removeprefix("torch.")
    assert_close(codes, expected, rtol)


def test_images_of_another_float_dtype(resnet, few, expected):
    assert_close(nf.capture(resnet, few.double(), layers=LAYERS), expected)
    assert_close(nf.capture(resnet, few.numpy().astype(np.float16), layers=LAYERS), expected, 0.01)


def test_channels_last_model_and_images(resnet, few, expected):
    model = copy.deepcopy(resnet).to(memory_format=torch.channels_last)
    images = few.to(memory_format=torch.channels_last)
    assert_close(nf.capture(model, images, layers=LAYERS), expected)
    assert model.layer4.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_near_and_leaves_the_model_in_float32(resnet, few, expected):
    before = [(p.data_ptr(), p.dtype) for p in resnet.parameters()]
    codes = nf.capture(resnet, few, layers=LAYERS, precision="bfloat16", batch_size=5)
    assert codes.precision == "bfloat16"
    assert "precision='bfloat16'" in repr(codes)
    assert_close(codes, expected, 0.03)
    assert np.abs(codes["layer4"] - expected["layer4"]).max() > 1e-4, "it must have been computed otherwise"
    assert [(p.data_ptr(), p.dtype) for p in resnet.parameters()] == before


def test_bfloat16_is_refused_where_it_does_not_apply(resnet, few):
    with pytest.raises(ValueError, match=r"precision must be None or one of \['bfloat16'\], got 'int8'"):
        nf.capture(resnet, few, layers="layer1", precision="int8")
    with pytest.raises(ValueError, match=r"expects a model of float32, got torch\.float16; leave precision out"):
        nf.capture(copy.deepcopy(resnet).half(), few, layers="layer1", precision="bfloat16")


# --- folding


class Folds(nn.Module):
    """Convolutions before batch norms that may be folded, and two that must not be."""

    def __init__(self):
        super().__init__()
        self.plain, self.plain_norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.used_twice, self.its_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.shared, self.shared_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)
        self.skip = True
        for norm in (self.plain_norm, self.its_norm, self.shared_norm):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.plain_norm(self.plain(x))
        x = self.shared_norm(self.shared(self.shared_norm(self.shared(x))))
        y = self.used_twice(x)
        x = self.its_norm(y) + (y if self.skip else 0)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def folds():
    torch.manual_seed(0)
    return Folds().eval()


def fold(model, layers, images):
    """Number of batch norms folded, and what the model answers then."""
    handles = [model.get_submodule(layer).register_forward_hook(lambda m, i, o: None) for layer in layers]
    with ForwardPass(model, layers=layers, read=lambda x, run: {"": run(x)}) as forward:
        forward.fold(images)
        answer = forward(images)
    for handle in handles:
        handle.remove()
    return forward.n_folded, answer


def test_pairs_run_once_and_alone(folds):
    with conv_norm_pairs(folds) as pairs:
        folds(torch.rand(1, 1, 5, 5))
    assert pairs == [(folds.plain, folds.plain_norm), (folds.used_twice, folds.its_norm)]


def test_folding_keeps_the_function_and_the_model(folds):
    folds.skip = False
    images = torch.rand(4, 1, 6, 6)
    weights = {name: value.clone() for name, value in folds.state_dict().items()}
    n_folded, answer = fold(folds, (), images)
    assert n_folded == 2
    torch.testing.assert_close(answer, folds(images), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, weights[name]) for name, value in folds.state_dict().items())
    assert "forward" not in folds.plain_norm.__dict__
    assert folds.plain.bias.requires_grad


def test_nothing_is_folded_if_that_changes_the_answer(folds):
    """The output of `used_twice` also goes past its batch norm."""
    images = torch.rand(4, 1, 6, 6)
    n_folded, answer = fold(folds, (), images)
    assert n_folded == 0
    torch.testing.assert_close(answer, folds(images), rtol=1e-5, atol=1e-5)


def test_a_convolution_that_is_read_is_not_folded(folds):
    folds.skip = False
    images = torch.rand(6, 1, 6, 6)
    assert fold(folds, ("plain",), images)[0] == 1
    assert fold(folds, ("plain_norm",), images)[0] == 2
    layers = ["plain", "plain_norm", "used_twice"]
    folded, whole = (nf.capture(folds, images, layers=layers, batch_size=size) for size in (2, 6))
    assert_close(folded, whole, 1e-5)


def test_a_convolution_with_someone_elses_hook_is_not_folded(folds):
    folds.skip = False
    seen = []
    handle = folds.plain.register_forward_hook(lambda module, inputs, output: seen.append(output.mean().item()))
    assert fold(folds, (), torch.rand(4, 1, 6, 6))[0] == 1
    handle.remove()


def test_folding_and_lowering_end_with_an_exception(resnet, few):
    def explode(module, inputs):
        if inputs[0].shape[0] == 2:  # the last batch
            raise RuntimeError("boom")

    model = copy.deepcopy(resnet)
    before = [p.data_ptr() for p in model.parameters()]
    model.head.register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="boom"):
        nf.capture(model, few, layers="layer1", batch_size=10, precision="bfloat16")
    assert [p.data_ptr() for p in model.parameters()] == before
    assert not any("forward" in module.__dict__ for module in model.modules())


# --- outputs that are no feature maps


class Tokens(nn.Module):
    """Returns what it was told to, as the output of `block`, and logits."""

    def __init__(self, wrap):
        super().__init__()
        self.block = nn.Identity()
        self.wrap = nn.Identity()
        self.wrap.forward = wrap

    def forward(self, x):
        self.wrap(self.block(x.flatten(2).transpose(1, 2)))
        return x.mean((2, 3))


@pytest.fixture
def pixels():
    """Two images of three channels and four positions: 0, 1, 2, ... with three more per position."""
    return torch.arange(24.0).reshape(2, 4, 3).transpose(1, 2).reshape(2, 3, 2, 2)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("cls", [[0, 1, 2], [12, 13, 14]]),
        ("tokens", [[4.5, 5.5, 6.5], [16.5, 17.5, 18.5]]),
        ("none", np.arange(24).reshape(2, 12)),
        ("spatial", np.arange(24).reshape(8, 3)),
    ],
)
def test_pools_of_tokens(pixels, pool, expected):
    codes = nf.capture(Tokens(lambda x: x), pixels, layers="block", pool=pool)
    np.testing.assert_allclose(codes["block"], expected)
    assert codes.shapes == {"block": (4, 3)}


@pytest.mark.parametrize("pool", ["mean", "max", 2])
def test_tokens_need_a_pool_of_their_own(pixels, pool):
    with pytest.raises(ValueError, match=r"got \(2, 4, 3\); .* take pool='cls' \(the first token\), 'tokens'"):
        nf.capture(Tokens(lambda x: x), pixels, layers="block", pool=pool)


@pytest.mark.parametrize("pool", ["cls", "tokens"])
def test_feature_maps_have_no_tokens(resnet, few, pool):
    with pytest.raises(ValueError, match=rf"pool='{pool}' expects a sequence of tokens, got feature maps"):
        nf.capture(resnet, few, layers="layer1", pool=pool)


def test_an_output_with_one_tensor_is_unpacked(pixels):
    for wrap in (lambda x: (x, None), lambda x: {"hidden": x, "length": 4}, lambda x: [x]):
        codes = nf.capture(Tokens(wrap), pixels, layers="wrap", pool="cls")
        np.testing.assert_allclose(codes["wrap"], [[0, 1, 2], [12, 13, 14]])


def test_one_of_several_tensors_is_named(pixels):
    model = Tokens(lambda x: {"hidden": x, "first": x[:, 0]})
    codes = nf.capture(model, pixels, layers=["wrap[hidden]", "wrap[first]", "block"], pool="cls")
    np.testing.assert_array_equal(codes["wrap[hidden]"], codes["wrap[first]"])
    assert codes.shapes["wrap[first]"] == (3,)
    model = Tokens(lambda x: (x[:, 0], x[:, 1]))
    np.testing.assert_allclose(nf.capture(model, pixels, layers="wrap[1]")["wrap[1]"], [[3, 4, 5], [15, 16, 17]])


def test_several_tensors_without_a_name_are_refused_with_their_names():
    with pytest.raises(TypeError, match=r"layer 'a' must return a tensor, got dict; .*a\[x\] \(2,\), a\[y\] \(3,\)"):
        only_tensor({"x": torch.zeros(2), "y": torch.zeros(3)}, layer="a")
    with pytest.raises(TypeError, match=r"must return a tensor \[2\], got tuple; .*a\[0\] \(1,\), a\[1\] \(1,\)"):
        only_tensor((torch.zeros(1), torch.zeros(1)), layer="a", key="2")
    with pytest.raises(TypeError, match="must return a tensor, got str; name a layer inside it"):
        only_tensor("text", layer="a")


def test_attention_gives_its_output(pixels):
    class Attends(Tokens):
        def __init__(self):
            super().__init__(lambda x: x)
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)

    codes = nf.capture(Attends(), pixels, layers="attention", pool="tokens")
    np.testing.assert_allclose(codes["attention"], codes.logits, rtol=1e-5)


def test_sums_of_half_precision_are_taken_in_float32():
    ones = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    ones[0, 0, 0, 0] = 3
    for pool in ("mean", 1):
        assert pool_maps(ones, pool).item() == pytest.approx(1 + 2 / 4096, abs=1e-6)


# --- logits


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)
        self.n_seconds = 0

    def forward(self, x):
        x = self.first(x)
        self.n_seconds += 1
        return {"maps": self.second(x)}


def test_without_logits_the_pass_ends_behind_the_last_layer(few):
    model = Counted()
    with pytest.raises(TypeError, match=r"logits .* got dict; .* or pass logits=False"):
        nf.capture(model, few, layers="first")
    seen = []
    model.second.register_forward_hook(lambda *_: seen.append(1))
    codes = nf.capture(model, few, layers="first", logits=False)
    assert seen == [], "the second layer must not run"
    assert codes["first"].shape == (12, 2)
    assert codes.logits is None
    with pytest.raises(ValueError, match="captured with logits=False"):
        _ = codes.predictions
    assert nf.capture(model, few, layers=["second", "first"], logits=False).layers == ("second", "first")


def test_codes_without_logits_are_saved_and_loaded(resnet, few, expected, tmp_path):
    codes = nf.capture(resnet, few, layers=LAYERS, logits=False, out=tmp_path / "a")
    assert_close(codes, expected)
    codes.save(tmp_path / "b")
    assert nf.LayerCodes.load(tmp_path / "b").logits is None
    assert not (tmp_path / "b" / "logits.npy").exists()


def test_logits_of_a_model_output_are_found(few):
    class Wrapped(nn.Sequential):
        def forward(self, x):
            return {"logits": super().forward(x), "loss": None}

    model = Wrapped(nn.Flatten(), nn.Linear(784, 3))
    np.testing.assert_array_equal(nf.capture(model, few, layers="1").logits, nf.capture(model, few, layers="1")["1"])


# --- positions


def test_positions_say_where_each_row_was(resnet, few, tmp_path):
    codes = nf.capture(resnet, few, layers=["layer4", "head"], pool="spatial", out=tmp_path / "codes")
    maps = nf.capture(resnet, few, layers="layer4", pool="none")["layer4"].reshape(12, 128, 4, 4)
    where = codes.positions("layer4")
    assert where.shape == (12 * 16, 3)
    np.testing.assert_array_equal(codes["layer4"], maps[where[:, 0], :, where[:, 1], where[:, 2]])
    assert codes.positions("layer4", [191, 1]).tolist() == [[11, 3, 3], [0, 0, 1]]
    assert codes.positions("head").tolist() == [[i] for i in range(12)], "one vector per image"
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 192\) for layer 'layer4', got 0 to 192"):
        codes.positions("layer4", [0, 192])


def test_nan_in_an_image_is_named(resnet, few):
    images = few.clone()
    images[7, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"expected finite numbers, got NaN or infinity in .* within images 5 to 9"):
        nf.capture(resnet, images, layers="layer1", batch_size=5)
