import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nfcodes_lib as nf
from nfcodes_lib.capture import pool_maps, tap


def count_hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def two_images():
    """Pixel means 0.25 and 0.5; maxima 1 and 0.5."""
    return torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]).reshape(2, 1, 2, 2)


def test_known_codes(tiny_net, two_images):
    codes = nf.capture(tiny_net, two_images, layers=["expand", "pool", "head"])
    np.testing.assert_allclose(codes["expand"], [[0.5, -0.25], [1.0, -0.5]])
    np.testing.assert_allclose(codes["pool"], [[0.5, 0], [1.0, 0]])
    np.testing.assert_allclose(codes.logits, [[0.5, 0, -0.5], [1.0, 0, -1.0]])
    np.testing.assert_array_equal(codes["head"], codes.logits)
    assert codes.predictions.tolist() == [0, 0]
    assert codes.predictions.dtype == np.int64
    assert codes.layers == ("expand", "pool", "head")
    assert codes.shapes == {"expand": (2, 2, 2), "pool": (2, 1, 1), "head": (3,)}


def test_in_place_relu_does_not_reach_back(tiny_net, two_images):
    codes = nf.capture(tiny_net, two_images, layers=["expand", "relu"], pool="none")
    assert codes["expand"].min() == -1, "the layer before an in-place ReLU keeps its negative values"
    assert codes["relu"].min() == 0


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("mean", [[0.5, -0.25], [1.0, -0.5]]),
        ("max", [[2, 0], [1.0, -0.5]]),
        ("none", [[2, 0, 0, 0, -1, 0, 0, 0], [1, 1, 1, 1, -0.5, -0.5, -0.5, -0.5]]),
        ("spatial", [[2, -1], [0, 0], [0, 0], [0, 0]] + [[1, -0.5]] * 4),
        (1, [[0.5, -0.25], [1.0, -0.5]]),
        (2, [[2, 0, 0, 0, -1, 0, 0, 0], [1, 1, 1, 1, -0.5, -0.5, -0.5, -0.5]]),
    ],
)
def test_pools(tiny_net, two_images, pool, expected):
    codes = nf.capture(tiny_net, two_images, layers="expand", pool=pool)
    np.testing.assert_allclose(codes["expand"], expected)
    assert codes["expand"].dtype == np.float32
    assert codes.logits.shape == (2, 3)


def test_batch_size_changes_nothing_but_rounding(resnet, images):
    whole = nf.capture(resnet, images, layers=["layer1", "layer4"], batch_size=64)
    parts = nf.capture(resnet, images, layers=["layer1", "layer4"], batch_size=7)
    for layer in whole:
        np.testing.assert_allclose(parts[layer], whole[layer], rtol=1e-4, atol=1e-5)


def test_codes_are_those_of_the_plain_forward_pass(resnet, images):
    codes = nf.capture(resnet, images, layers=["layer2", "layer4"])
    with torch.no_grad():
        layer2 = resnet.layer2(resnet.layer1(resnet.stem(resnet.normalise(images))))
        logits = resnet(images)
    np.testing.assert_allclose(codes["layer2"], layer2.mean((2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codes.logits, logits, rtol=1e-4, atol=1e-4)


def test_every_kind_of_input_gives_the_same_codes(resnet, images):
    dataset = TensorDataset(images, torch.zeros(len(images)))
    expected = nf.capture(resnet, images, layers="layer3", batch_size=16)["layer3"]
    for source in (images.numpy(), dataset, DataLoader(dataset, 16), DataLoader(images, 16)):
        codes = nf.capture(resnet, source, layers="layer3", batch_size=16)
        np.testing.assert_allclose(codes["layer3"], expected, rtol=1e-4, atol=1e-5)


def test_model_comes_back_as_it_was(tiny_net, two_images):
    tiny_net.train()
    tiny_net.head.eval()
    tiny_net.expand.weight.requires_grad_(False)
    strides = [parameter.stride() for parameter in tiny_net.parameters()]
    weights = [parameter.data_ptr() for parameter in tiny_net.parameters()]
    nf.capture(tiny_net, two_images, layers="expand")
    assert tiny_net.training
    assert tiny_net.expand.training
    assert not tiny_net.head.training
    assert not tiny_net.expand.weight.requires_grad
    assert tiny_net.head.weight.requires_grad
    assert [parameter.stride() for parameter in tiny_net.parameters()] == strides
    assert [parameter.data_ptr() for parameter in tiny_net.parameters()] == weights
    assert count_hooks(tiny_net) == 0


def test_batch_norm_statistics_do_not_move(images):
    model = nf.load_model("resnet", pretrained=False).train()
    before = model.layer1.conv1[1].running_mean.clone()
    nf.capture(model, images, layers="layer1")
    assert torch.equal(model.layer1.conv1[1].running_mean, before)


def test_hooks_come_off_after_an_exception(tiny_net, two_images, tmp_path):
    tiny_net.train()

    def explode(module, inputs):
        raise RuntimeError("boom")

    handle = tiny_net.head.register_forward_pre_hook(explode)
    with pytest.raises(RuntimeError, match="boom"):
        nf.capture(tiny_net, two_images, layers=["expand", "relu"], out=tmp_path / "codes")
    handle.remove()
    assert count_hooks(tiny_net) == 0
    assert tiny_net.training
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_no_gradient_is_kept(resnet, images):
    seen = []
    handle = resnet.layer2.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    nf.capture(resnet, images, layers="layer1")
    handle.remove()
    assert seen == [False]


def test_layer_called_twice_is_refused(two_images):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.relu(x).mean((2, 3)))

    with pytest.raises(
        ValueError, match=r"layer 'relu' was expected to run once .* it ran twice; capture a layer around"
    ):
        nf.capture(Shared(), two_images, layers="relu")


def test_layer_that_does_not_run_is_refused(tiny_net, two_images):
    tiny_net.forward = lambda x: x.mean((2, 3))
    with pytest.raises(ValueError, match=r"\['expand'\] did not"):
        nf.capture(tiny_net, two_images, layers="expand")


def test_layer_with_a_tuple_output_is_refused(two_images):
    class Split(nn.Module):
        def forward(self, x):
            return x, x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.split = Split()

        def forward(self, x):
            return self.split(x)[0].mean((2, 3))

    with pytest.raises(TypeError, match="layer 'split' must return a tensor, got tuple"):
        nf.capture(Net(), two_images, layers="split")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"layers": "expnad"},
            ValueError,
            r"layer must be one of \['expand', .* got 'expnad'; did you mean 'expand'\?",
        ),
        ({"layers": []}, ValueError, "one or more different names"),
        ({"layers": ["expand", "expand"]}, ValueError, "one or more different names"),
        ({"pool": "average"}, ValueError, "pool must be one of .* got 'average'"),
        ({"pool": 0}, ValueError, "positive int, got 0"),
        ({"pool": True}, ValueError, "positive int, got True"),
        ({"pool": 3}, ValueError, "pool must be at most 2 for this layer, got 3"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive int, got 0"),
        ({"images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8)}, TypeError, r"images must be floats, got torch.uint8"),
        ({"images": [[1.0]]}, TypeError, "images must be a tensor, .* got list"),
        ({"images": torch.zeros(0, 1, 2, 2)}, ValueError, "at least one image"),
    ],
)
def test_bad_arguments(tiny_net, two_images, arguments, error, message):
    arguments = {"images": two_images, "layers": "expand"} | arguments
    with pytest.raises(error, match=message):
        nf.capture(tiny_net, **arguments)
    assert count_hooks(tiny_net) == 0


def test_model_without_logits_is_refused(tiny_net, two_images):
    with pytest.raises(TypeError, match=r"the model must return logits of shape \(n, n_classes\), got \(2, 2, 2, 2\)"):
        nf.capture(tiny_net[:2], two_images, layers="expand")


def test_images_of_two_sizes_are_refused(tiny_net):
    loader = DataLoader([torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)], batch_size=1)
    with pytest.raises(ValueError, match="expected activations of one shape"):
        nf.capture(tiny_net, loader, layers="expand")


def test_pool_needs_maps_or_vectors():
    with pytest.raises(ValueError, match=r"got \(2, 3, 4\); name another layer"):
        pool_maps(torch.zeros(2, 3, 4), "mean")


def test_tap_keeps_gradients(tiny_net, two_images):
    x = two_images.clone().requires_grad_(True)
    with tap(tiny_net, ["expand"], lambda output: output.mean((2, 3))) as outputs:
        tiny_net(x)
        outputs["expand"][:, 0].sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.5))
    assert count_hooks(tiny_net) == 0


def test_progress_bar_is_quiet_in_ci(tiny_net, two_images, monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    nf.capture(tiny_net, two_images, layers="expand")
    assert capsys.readouterr().err == ""
    nf.capture(tiny_net, two_images, layers="expand", progress=True)
    assert "capture" in capsys.readouterr().err


# --- on disk


@pytest.mark.parametrize("pool", ["mean", "spatial"])
def test_disk_equals_memory_bit_for_bit(resnet, images, tmp_path, pool):
    arguments = {"layers": ["layer3", "layer4"], "pool": pool, "batch_size": 16}
    memory = nf.capture(resnet, images, **arguments)
    disk = nf.capture(resnet, images, out=tmp_path / "codes", **arguments)
    for layer in memory:
        assert isinstance(disk[layer], np.memmap)
        np.testing.assert_array_equal(disk[layer], memory[layer])
    np.testing.assert_array_equal(disk.logits, memory.logits)
    assert disk.shapes == memory.shapes
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]


def test_save_and_load(resnet, images, tmp_path):
    codes = nf.capture(resnet, images, layers=["layer1", "layer2.conv1"])
    assert codes.save(tmp_path / "codes") == tmp_path / "codes"
    loaded = nf.LayerCodes.load(tmp_path / "codes")
    assert loaded.layers == codes.layers
    assert loaded.pool == "mean"
    assert loaded.shapes == codes.shapes
    for layer in codes:
        np.testing.assert_array_equal(loaded[layer], codes[layer])
    np.testing.assert_array_equal(loaded.predictions, codes.predictions)
    loaded.save(tmp_path / "copy")
    np.testing.assert_array_equal(nf.LayerCodes.load(tmp_path / "copy")["layer1"], codes["layer1"])


def test_nothing_is_overwritten(resnet, images, tmp_path):
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"codes exists; remove it or choose another name"):
        nf.capture(resnet, images, layers="layer1", out=tmp_path / "codes")
    assert (tmp_path / "codes" / "mine.txt").read_text() == "precious"


def test_unknown_layer_of_codes(resnet, images):
    codes = nf.capture(resnet, images, layers=["layer1"])
    with pytest.raises(KeyError, match=r"layer must be one of \['layer1'\], got 'layr1'; did you mean 'layer1'\?"):
        codes["layr1"]
    assert "layer1" in codes
    assert list(codes) == ["layer1"]
    assert repr(codes) == "LayerCodes(layer1: 40 × 16; pool='mean')"


@pytest.fixture
def saved(tiny_net, two_images, tmp_path):
    nf.capture(tiny_net, two_images, layers="expand", out=tmp_path / "codes")
    return tmp_path / "codes"


def edit_meta(folder, change):
    meta = json.loads((folder / "codes.json").read_text())
    change(meta)
    (folder / "codes.json").write_text(json.dumps(meta))


def test_load_names_what_is_damaged(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of layer codes"):
        nf.LayerCodes.load(tmp_path / "nothing")
    array = next(saved.glob("00-*.npy"))
    content = array.read_bytes()
    for damaged in (content[:-1], b"", b"garbage" * 40):
        array.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"expected a complete npy file at .*00-expand\.npy"):
            nf.LayerCodes.load(saved)
    np.save(array, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="expected a float32 matrix"):
        nf.LayerCodes.load(saved)
    np.save(array, np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"expected 2 rows for layer 'expand' .* got 3"):
        nf.LayerCodes.load(saved)


def test_pickled_arrays_are_refused(saved):
    np.save(next(saved.glob("00-*.npy")), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="complete npy file"):
        nf.LayerCodes.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(format="something else"),
        lambda meta: meta.pop("layers"),
        lambda meta: meta.pop("pool"),
        lambda meta: meta["layers"][0].update(file="../secret.npy"),
        lambda meta: meta["layers"][0].update(file="/etc/passwd"),
        lambda meta: meta["layers"][0].pop("shape"),
    ],
)
def test_load_checks_the_description(saved, change):
    edit_meta(saved, change)
    with pytest.raises(ValueError, match=r"expected the description of a complete capture in .*codes\.json"):
        nf.LayerCodes.load(saved)


def test_load_without_description(saved):
    (saved / "codes.json").unlink()
    with pytest.raises(ValueError, match=r"codes\.json"):
        nf.LayerCodes.load(saved)


# --- several processes


def capture_share(rank, folder, world_size):
    """What each of the processes of the test below runs."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    images = nf.load_images("test", n_samples=7)[0]
    codes = nf.capture(nf.load_model("resnet"), images, layers="layer4", out=f"{folder}/codes")
    np.save(f"{folder}/rank{rank}.npy", codes["layer4"])
    torch.distributed.destroy_process_group()


def test_ranks_share_the_images(resnet, tmp_path):
    torch.multiprocessing.spawn(capture_share, (str(tmp_path), 2), nprocs=2)
    shares = [np.load(tmp_path / f"rank{rank}.npy") for rank in range(2)]
    assert [len(share) for share in shares] == [3, 4]
    whole = nf.capture(resnet, nf.load_images("test", n_samples=7)[0], layers="layer4")
    np.testing.assert_allclose(np.concatenate(shares), whole["layer4"], rtol=1e-4, atol=1e-5)
    for rank in range(2):
        np.testing.assert_array_equal(nf.LayerCodes.load(tmp_path / f"codes-rank{rank}-of-2")["layer4"], shares[rank])
