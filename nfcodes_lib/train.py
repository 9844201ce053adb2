"""Train the networks that the book ships: ``python -m nfcodes_lib.train resnet --seed 0``.

SGD with Nesterov momentum and one cycle of the learning rate (Smith and Topin 2017, arXiv:1708.07120) on all 60,000
training images, flipped and shifted at random, in bfloat16 where the processor has it. With ``--attack-steps`` every
batch is replaced by its PGD adversarial examples (Madry et al. 2017, arXiv:1706.06083). Writes the weights in half
precision and, beside them, the record: seed, settings, versions, accuracy in full and in half precision, checksum.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from . import _assets, data, models


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are those of the standard networks.

    Attributes
    ----------
    epochs, batch_size : int
    learning_rate, momentum, weight_decay : float
        Peak of the cycle; Nesterov momentum; L2 penalty on weights, not on batch norm.
    shift : int
        Largest random translation, pixels.
    attack_epsilon, attack_steps : float, int
        L-infinity radius (pixels in [0, 1]) and number of PGD steps of the training attack; 0 steps for clean images.
    """

    epochs: int = 14
    batch_size: int = 256
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 2
    attack_epsilon: float = 8 / 255
    attack_steps: int = 0


def augment(images: torch.Tensor, *, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Flip each image with probability 1/2 and translate it by up to `shift` pixels, filling with black."""
    n, _, height, width = images.shape
    flips = torch.rand(n, generator=generator) < 0.5
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=generator)
    padded = F.pad(torch.where(flips[:, None, None, None], images.flip(3), images), [shift] * 4)
    rows, columns = torch.arange(height) + dy, torch.arange(width) + dx
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def pgd_examples(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilon: float,
    steps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Adversarial examples for training: `steps` signed-gradient steps of 2.5 epsilon / steps from a random start."""
    noise = torch.rand(images.shape, generator=generator) * 2 - 1
    adversarial = (images + epsilon * noise).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() + 2.5 * epsilon / steps * gradient.sign()
        adversarial = torch.minimum(torch.maximum(adversarial, images - epsilon), images + epsilon).clamp(0, 1)
    return adversarial.detach()


def train(
    name: str, images: torch.Tensor, labels: torch.Tensor, *, seed: int, recipe: Recipe, progress: bool = True
) -> nn.Module:
    """Train the network `name` from the initialisation that `seed` gives.

    Parameters
    ----------
    name : str
        A key of ``models.MODELS``.
    images, labels : torch.Tensor
        Float32 in [0, 1], shape (n, 1, 28, 28), and int64, shape (n,).
    seed : int
        Of the initialisation, of the order of the samples and of the augmentation.
    recipe : Recipe
    progress : bool

    Returns
    -------
    torch.nn.Module
        In eval mode.
    """
    model = models.build_model(name, seed=seed).to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(seed)
    steps_per_epoch = math.ceil(len(images) / recipe.batch_size)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=recipe.epochs * steps_per_epoch,
        pct_start=0.2,
        cycle_momentum=False,
    )
    with tqdm(
        total=recipe.epochs * steps_per_epoch, desc=f"{name} seed {seed}", disable=not progress, mininterval=2
    ) as bar:
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(images), generator=generator).split(recipe.batch_size):
                x = augment(images[batch], shift=recipe.shift, generator=generator)
                x, y = x.contiguous(memory_format=torch.channels_last), labels[batch]
                if recipe.attack_steps:
                    radius, steps = recipe.attack_epsilon, recipe.attack_steps
                    x = pgd_examples(model, x, y, epsilon=radius, steps=steps, generator=generator)
                with torch.autocast("cpu", torch.bfloat16):
                    loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update()
    return model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int = 500) -> float:
    """Share of images that `model` (in eval mode) gives their label, in float32."""
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return sum((model(x).argmax(1) == y).sum().item() for x, y in pairs) / len(labels)


def ship(model: nn.Module, name: str, *, seed: int, record: dict, root: Path = _assets.ASSETS) -> dict:
    """Write `model` in half precision with its record below `root`; returns the record with accuracy and checksum.

    The accuracy on the 10,000 test images is measured before the rounding to half precision and again from the
    written file, so that the record shows what the rounding cost.
    """
    from safetensors.torch import save_file

    images, labels = data.load_images("test")
    before = accuracy(model, images, labels)
    path = Path(root) / models.weights_name(name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    save_file(halves, path)
    shipped = models.build_model(name, seed=seed).eval()
    models.load_weights(shipped, path)
    record = record | {
        "test_accuracy": accuracy(shipped, images, labels),
        "test_accuracy_before_rounding_to_half": before,
        "sha256": _assets.sha256(path),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    source = f"trained by python -m nfcodes_lib.train, see {path.with_suffix('.json').name}"
    _assets.register(models.weights_name(name, seed), source=source, license="MIT, this project", root=root)
    return record


def main(arguments: list[str] | None = None) -> None:
    """Command line: train one network on the full training set and ship it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(models.MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=_assets.ASSETS, help="folder that gets weights/ and MANIFEST.json")
    for field, default in asdict(Recipe()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args(arguments))
    name, seed, root = options.pop("name"), options.pop("seed"), options.pop("root")
    recipe = Recipe(**options)
    images, labels = data.load_images("train", source="fashion_mnist", download=True)
    start = time.perf_counter()
    model = train(name, images, labels, seed=seed, recipe=recipe)
    record = {
        "model": name,
        "seed": seed,
        "recipe": asdict(recipe),
        "n_training_images": len(images),
        "training_seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(ship(model, name, seed=seed, record=record, root=root), indent=2))


if __name__ == "__main__":
    main()
