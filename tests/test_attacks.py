"""Attacks: known answers on models whose gradient is known, budgets kept, and every refusal of arXiv:1902.06705."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import nfcodes_lib as nf
from nfcodes_lib.attacks import attack_images, equal_norm_noise, perturbation_norm

EPSILON = 8 / 255


class Linear(nn.Module):
    """Two logits, w·x and -w·x, for 2 x 2 images: the strongest attack is known."""

    def __init__(self, weights=(1.0, -2.0, 3.0, -4.0), scale=1.0):
        super().__init__()
        self.weights = nn.Parameter(scale * torch.tensor(weights))

    def forward(self, x):
        z = x.flatten(1) @ self.weights
        return torch.stack([z, -z], 1)


@pytest.fixture
def linear():
    return Linear().eval()


@pytest.fixture(scope="module")
def sample():
    return nf.load_images("test", n_samples=48, random_state=1)


def grey(n=3):
    return torch.full((n, 1, 2, 2), 0.5)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_linf_attack_on_a_linear_model_goes_to_the_known_corner(linear, attack):
    attacked = attack_images(linear, grey(), torch.zeros(3, dtype=torch.long), epsilons=[0.1], attack=attack, steps=10)
    corner = 0.5 - 0.1 * torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 2, 2)
    torch.testing.assert_close(attacked.images[0], corner.expand(3, 1, 2, 2))


@pytest.mark.parametrize(("attack", "tolerance"), [("fgsm", 1e-6), ("pgd", 0.1)])
def test_l2_attack_on_a_linear_model_goes_along_the_weights(linear, attack, tolerance):
    options = {"attack": attack, "norm": "l2", "steps": 40}  # a random start is not quite forgotten
    attacked = attack_images(linear, grey(), torch.zeros(3, dtype=torch.long), epsilons=[0.2], **options)
    change = (attacked.images[0] - grey()).flatten(1)
    torch.testing.assert_close(change.norm(dim=1), torch.full((3,), 0.2))
    cosine = torch.cosine_similarity(change, -linear.weights.detach()[None])
    torch.testing.assert_close(cosine, torch.ones(3), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("norm", "shortest"), [("linf", 1 / 10), ("l2", 1 / 30**0.5)])
def test_minimum_norm_attack_finds_the_distance_to_the_plane(norm, shortest):
    model = Linear((1.0, 2.0, 3.0, -4.0)).eval()  # w·x = 1 at grey, so 1 / ||w|| from the plane w·x = 0
    attacked = attack_images(
        model, grey(1), torch.tensor([0]), epsilons=[0.05, 0.5], attack="minimum-norm", norm=norm, steps=200
    )
    assert attacked.success[:, 0].tolist() == [False, True]
    length = float(perturbation_norm(attacked.images[1] - grey(1), norm)[0])
    assert shortest - 1e-4 <= length <= 1.1 * shortest


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "minimum-norm"])
def test_every_attack_keeps_its_budget_and_the_bounds(resnet, sample, attack, norm):
    images, labels = sample[0][:12], sample[1][:12]
    epsilons = [0, 0.01, 0.05] if norm == "linf" else [0, 0.2, 1.0]
    attacked = attack_images(resnet, images, labels, epsilons=epsilons, attack=attack, norm=norm, steps=5)
    assert attacked.images.shape == (3, 12, 1, 28, 28)
    assert attacked.images.min() >= 0
    assert attacked.images.max() <= 1
    for each, epsilon in zip(attacked.images, epsilons, strict=True):
        assert perturbation_norm(each - images, norm).max() <= epsilon + 1e-5
    assert torch.equal(attacked.images[0], images)
    assert (attacked.predictions == np.stack([resnet(each).argmax(1).numpy() for each in attacked.images])).all()
    assert (attacked.success == (attacked.predictions != labels.numpy())).all()


def test_success_rises_with_the_budget_and_pgd_is_at_least_as_strong_as_fgsm(resnet, sample):
    epsilons = [0, 1 / 255, 4 / 255, 32 / 255]
    options = {"epsilons": epsilons, "steps": 15}
    pgd = attack_images(resnet, *sample, **options).success.mean(1)
    fgsm = attack_images(resnet, *sample, attack="fgsm", **options).success.mean(1)
    assert (np.diff(pgd) > 0).all()
    assert pgd[-1] == 1
    assert (pgd >= fgsm).all()
    assert pgd[2] > fgsm[2]


def test_targeted_attack_reaches_its_targets(resnet, sample):
    images, labels = sample[0][:16], sample[1][:16]
    targets = (labels + 3) % 10
    attacked = attack_images(resnet, images, labels, epsilons=[0.2], targets=targets, steps=20)
    assert attacked.success.mean() > 0.9
    hit = attacked.success[0]
    assert (attacked.predictions[0][hit] == targets.numpy()[hit]).all()


def test_restarts_only_help_and_spare_what_has_fallen(resnet, sample):
    options = {"epsilons": [3 / 255], "steps": 3, "random_state": 0}
    once = attack_images(resnet, *sample, **options)
    more = attack_images(resnet, *sample, restarts=4, **options)
    assert (more.success >= once.success).all()
    fallen = once.success[0]
    assert fallen.any()
    assert torch.equal(more.images[0][torch.from_numpy(fallen)], once.images[0][torch.from_numpy(fallen)])
    assert not torch.equal(more.images[0], once.images[0])


def test_equal_seeds_give_equal_images_and_others_others(resnet, sample):
    images, labels = sample[0][:8], sample[1][:8]

    def run(seed):
        return attack_images(resnet, images, labels, epsilons=[EPSILON], steps=3, random_state=seed).images

    state = torch.get_rng_state()
    first = run(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(first, run(0))
    assert not torch.equal(first, run(1))


def test_a_callable_is_an_attack_too(resnet, sample):
    images, labels = sample[0][:6], sample[1][:6]
    seen = []

    def brighter(model, images, labels, epsilon, targets=None):
        seen.append((epsilon, None if targets is None else targets.tolist()))
        assert model is resnet
        return (images + epsilon).clamp(0, 1)

    attacked = attack_images(resnet, images, labels, epsilons=[0, 0.1, 0.3], attack=brighter)
    torch.testing.assert_close(attacked.images[2], (images + 0.3).clamp(0, 1))
    attack_images(resnet, images, labels, epsilons=[0.1], attack=brighter, targets=(labels + 1) % 10)
    assert seen == [(0.1, None), (0.3, None), (0.1, ((labels + 1) % 10).tolist())]


def test_an_attack_of_foolbox_is_taken_as_it_is(resnet, sample):
    import foolbox

    attack = foolbox.attacks.LinfDeepFoolAttack(steps=10)
    attacked = attack_images(resnet, sample[0][:6], sample[1][:6], epsilons=[0.1], attack=attack)
    assert attacked.success.all()


def test_the_model_is_left_as_it_was(sample):
    model = nf.load_model("resnet")
    model.head.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = copy.deepcopy(model.state_dict())

    def failing(model, images, labels, epsilon):
        raise RuntimeError("no attack")

    attack_images(model, sample[0][:4], sample[1][:4], epsilons=[EPSILON], steps=2)
    with pytest.raises(RuntimeError, match="no attack"):
        attack_images(model, sample[0][:4], sample[1][:4], epsilons=[EPSILON], attack=failing)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"head.weight"}
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"head.bias"}
    assert not any(module.training for module in model.modules())


def test_a_model_in_train_mode_is_refused(sample):
    model = nf.load_model("resnet")
    model.layer2.train()
    with pytest.raises(ValueError, match=r"eval mode, got 'layer2' in train mode; call model.eval\(\)"):
        attack_images(model, *sample, epsilons=[EPSILON])


def test_probabilities_are_refused(resnet, sample):
    model = nn.Sequential(resnet, nn.Softmax(1)).eval()
    with pytest.raises(ValueError, match=r"must return logits, got rows that add up to 1.*leave its softmax out"):
        attack_images(model, *sample, epsilons=[EPSILON])


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: 2 * x - 1, lambda x: x * float("nan")])
def test_images_outside_the_bounds_are_refused(resnet, sample, change):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got values from .*normalisation inside the model"):
        attack_images(resnet, change(sample[0]), sample[1], epsilons=[EPSILON])


class Rounding(Linear):
    def forward(self, x):
        return super().forward(x.round() if self.how == "round" else x.detach())


@pytest.mark.parametrize("how", ["round", "detach"])
def test_gradients_that_are_zero_everywhere_are_refused(how):
    model = Rounding().eval()
    model.how = how
    with pytest.raises(ValueError, match=r"exactly zero for a whole batch.*look for rounding"):
        attack_images(model, grey(), torch.zeros(3, dtype=torch.long), epsilons=[0.1])


def test_gradients_that_are_zero_at_some_images_are_warned_of():
    model = Linear((1.0, 1.0, 1.0, 1.0), scale=200.0).eval()
    images = torch.cat([grey(2) * 1e-3, grey(1)])  # the third image's logits are 800 apart: its softmax is saturated
    with pytest.warns(UserWarning, match="exactly zero at 1 of 3 images"):
        attack_images(model, images, torch.zeros(3, dtype=torch.long), epsilons=[0.1], steps=2)


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        (lambda m, x, y, e: x + 2 * e, r"must keep its linf budget of 0.1.*project the change"),
        (lambda m, x, y, e: x - 0.6, r"must return images in \[0, 1\]; clamp"),
        (lambda m, x, y, e: x[:1], r"must return images of shape \(3, 1, 2, 2\), got \(1, 1, 2, 2\)"),
        (lambda m, x, y, e: None, "must return images of shape .* got NoneType"),
    ],
)
def test_a_callable_that_cheats_is_refused(linear, attack, match):
    with pytest.raises(ValueError, match=match):
        attack_images(linear, grey(), torch.zeros(3, dtype=torch.long), epsilons=[0.1], attack=attack)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attack": "pdg"}, "attack must be one of .* got 'pdg'; did you mean 'pgd'"),
        ({"attack": 3}, "or a callable, got 3"),
        ({"norm": "l1"}, "norm must be one of .* got 'l1'"),
        ({"epsilons": [0.2, 0.1]}, "epsilons must increase"),
        ({"epsilons": [-0.1]}, "finite numbers of at least 0"),
        ({"epsilons": []}, "one or more finite numbers"),
        ({"epsilons": [float("nan")]}, "finite numbers"),
        ({"restarts": 0}, "restarts must be a whole number of at least 1"),
        ({"attack": "fgsm", "restarts": 2}, "restarts must be 1 for 'fgsm'"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"targets": torch.tensor([0, 1, 2])}, r"targets must lie in \[0, 2\), the model's classes, got 0 to 2"),
        ({"labels": torch.tensor([0.0, 1.0, 1.0])}, "labels must be one class index per image"),
        ({"labels": torch.tensor([0])}, r"shape \(3,\), got torch.int64 \(1,\)"),
        ({"images": grey()[0]}, "images must be a float tensor of shape"),
        ({"images": np.zeros((3, 1, 2, 2))}, "images must be a float tensor.*got ndarray"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(linear, options, match):
    options = {"images": grey(), "labels": torch.zeros(3, dtype=torch.long), "epsilons": [0.1]} | options
    with pytest.raises(ValueError, match=match):
        attack_images(linear, options.pop("images"), options.pop("labels"), **options)


def test_a_model_that_returns_no_logits_is_refused():
    model = nn.Conv2d(1, 2, 1).eval()
    with pytest.raises(ValueError, match=r"must return logits of shape \(n, n_classes\), got \(3, 2, 2, 2\)"):
        attack_images(model, grey(), torch.zeros(3, dtype=torch.long), epsilons=[0.1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_has_the_length_asked_for_after_clipping(sample, norm):
    images = sample[0]
    lengths = torch.linspace(0, 3, len(images))
    noisy = equal_norm_noise(images, lengths, norm=norm, generator=torch.Generator().manual_seed(0))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    torch.testing.assert_close((noisy - images).flatten(1).norm(dim=1), lengths, atol=1e-4, rtol=1e-4)
    assert torch.equal(noisy[0], images[0])


def test_noise_that_cannot_be_so_long_goes_as_far_as_it_can():
    noisy = equal_norm_noise(torch.zeros(1, 1, 2, 2), torch.tensor([10.0]), generator=torch.Generator().manual_seed(1))
    assert set(noisy.flatten().tolist()) <= {0.0, 1.0}
    assert 0 < float(noisy.norm()) <= 2
