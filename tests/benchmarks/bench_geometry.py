"""Coverage of layer_geometry's intervals beside a bootstrap: `pytest tests/benchmarks/bench_geometry.py -s` (minutes).

Samples of a population tell the mean of each measure; the intervals of other samples should hold that mean in 95 % of
cases. The populations: three mixtures of classes after a ReLU, and two layers of the shipped residual network, whose
10,000 test images are sampled 800 at a time.
"""

import numpy as np
import pytest

import nfcodes_lib as nf
from nfcodes_lib.geometry import layer_geometry

N_SAMPLES_DRAWN, N_REPLICATES = 80, 60


def measures(codes, labels):
    """The measures that have an interval."""
    found = layer_geometry(codes, labels)
    return {
        "participation_ratio": found.participation_ratio,
        "cosine_distance": found.cosines.raw,
        "directions": found.cosines.directions,
        "fuzziness": found.classes.fuzziness,
        "variance_ratio": found.classes.variance_ratio,
        "two_nn": found.two_nn.dimension,
    }


def mixture(n_classes, n_features, n_samples, distance):
    """A function that draws codes and labels."""
    rng = np.random.default_rng(0)
    centres = 1 + distance * rng.normal(size=(n_classes, n_features))
    noise = 0.3 * rng.normal(size=(n_features, n_features)) * np.geomspace(1, 0.1, n_features)[:, None]

    def draw(rng):
        labels = rng.integers(0, n_classes, n_samples)
        return np.maximum(centres[labels] + rng.normal(size=(n_samples, n_features)) @ noise, 0), labels

    return draw


def layer(name):
    """A function that draws codes of test images and their labels."""
    images, labels = nf.load_images("test")
    codes = nf.capture(nf.load_model("resnet"), images, layers=[name])[name]

    def draw(rng):
        chosen = rng.choice(len(codes), 800, replace=False)
        return codes[chosen], labels.numpy()[chosen]

    return draw


@pytest.mark.parametrize(
    "population",
    [
        (mixture, 5, 8, 300, 1.0),
        (mixture, 10, 16, 500, 0.5),
        (mixture, 10, 40, 500, 2.0),
        (layer, "layer1"),
        (layer, "layer4"),
    ],
    ids=lambda given: " ".join([given[0].__name__, *map(str, given[1:])]),
)
def test_coverage(population):
    make, *settings = population
    draw, rng = make(*settings), np.random.default_rng(1)
    samples = [measures(*draw(rng)) for _ in range(200)]
    mean = {name: np.mean([one[name] for one in samples]) for name in samples[0]}
    hits = {name: np.zeros(2) for name in mean}
    for _ in range(N_SAMPLES_DRAWN):
        codes, labels = draw(rng)
        found = layer_geometry(codes, labels, n_resamples=N_REPLICATES, random_state=int(rng.integers(2**31)))
        intervals = found.intervals | {"two_nn": found.two_nn.interval}
        drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(N_REPLICATES)]
        replicates = [measures(codes[rows], labels[rows]) for rows in drawn]
        for name, truth in mean.items():
            low, high = np.quantile([one[name] for one in replicates], [0.025, 0.975])
            hits[name] += [intervals[name][0] <= truth <= intervals[name][1], low <= truth <= high]
    print(f"\n{make.__name__} {settings}")
    for name, (half, percentile) in hits.items():
        print(f"  {name:20} half-samples {half / N_SAMPLES_DRAWN:.0%}, percentile {percentile / N_SAMPLES_DRAWN:.0%}")
        assert half > 0.85 * N_SAMPLES_DRAWN
