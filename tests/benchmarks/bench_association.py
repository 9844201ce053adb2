"""Coverage of association's interval beside a bootstrap's: `pytest tests/benchmarks/bench_association.py -s` (minutes).

The population is a table of P(unit, output) with a known strength of association. Its samples tell the mean AMI; the
intervals of other samples should hold that mean in 95 % of cases. Printed with it: the AMI of infinitely many samples.
"""

import numpy as np
import pytest

from nfcodes_lib.codes import association

N_OUTPUTS, N_SAMPLES_DRAWN, N_REPLICATES = 10, 80, 99


def adjusted(cells):
    """AMI of samples given as cell indices, without null."""
    found = association(cells // N_OUTPUTS, cells % N_OUTPUTS, n_permutations=1, n_resamples=2)
    return found.adjusted_mutual_information


def entropy(shares):
    shares = shares[shares > 0]
    return -(shares * np.log(shares)).sum()


@pytest.mark.parametrize(
    ("n_samples", "n_units", "strength"),
    [(500, 20, 0.0), (500, 20, 0.5), (500, 100, 0.5), (2000, 100, 0.8), (2000, 400, 0.6), (2000, 400, 0.95)],
)
def test_coverage(n_samples, n_units, strength):
    rng = np.random.default_rng(0)
    table = np.full((n_units, N_OUTPUTS), (1 - strength) / N_OUTPUTS)
    table[np.arange(n_units), np.arange(n_units) % N_OUTPUTS] += strength
    table *= rng.permutation(np.arange(1, n_units + 1) ** -0.5)[:, None]
    table /= table.sum()

    def draw():
        return rng.choice(table.size, n_samples, p=table.ravel())

    mean = np.mean([adjusted(draw()) for _ in range(300)])
    marginals = entropy(table.sum(1)) + entropy(table.sum(0))
    limit = 2 * (marginals - entropy(table.ravel())) / marginals
    hits = {"half-samples": 0, "percentile": 0, "basic": 0}
    for _ in range(N_SAMPLES_DRAWN):
        cells = draw()
        found = association(
            cells // N_OUTPUTS, cells % N_OUTPUTS, n_permutations=1, n_resamples=N_REPLICATES, random_state=rng
        )
        value = found.adjusted_mutual_information
        replicates = [adjusted(rng.choice(cells, n_samples)) for _ in range(N_REPLICATES)]
        low, high = np.quantile(replicates, [0.025, 0.975])
        hits["half-samples"] += found.interval[0] <= mean <= found.interval[1]
        hits["percentile"] += low <= mean <= high
        hits["basic"] += 2 * value - high <= mean <= 2 * value - low
    shares = ", ".join(f"{name} {100 * count / N_SAMPLES_DRAWN:.0f} %" for name, count in hits.items())
    print(f"\n{n_samples} samples, {n_units} units, strength {strength}: {shares}; mean {mean:.3f}, limit {limit:.3f}")
    assert hits["half-samples"] > 0.85 * N_SAMPLES_DRAWN
    assert hits["percentile"] < hits["half-samples"]
