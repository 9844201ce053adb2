"""The claims: the rules of their verdicts, and that results, page and code agree."""

import json
from pathlib import Path

import numpy as np
import pytest

from nfcodes_lib import _claims_measures, _claims_page, claims


@pytest.fixture(scope="module")
def results():
    return json.loads(claims.RESULTS.read_text())


def test_page_is_what_the_results_say(results):
    assert claims.PAGE.read_text() == _claims_page.page(results, claims.ROWS), "run python -m nfcodes_lib.claims --page"


def test_verdicts_follow_from_the_measurements(results):
    assert set(results["measurements"]) == {claims.key(*job) for job in claims.jobs()}
    again = claims.rounded(claims.summarise(results["measurements"]))
    for row, recorded in zip(again, results["rows"], strict=True):
        assert row["verdict"] == recorded["verdict"]
        for kind in claims.KINDS:
            assert row["kinds"][kind]["effect"] == pytest.approx(recorded["kinds"][kind]["effect"], rel=1e-4)
            assert row["kinds"][kind]["interval"] == pytest.approx(recorded["kinds"][kind]["interval"], abs=1e-4)


def test_measurements_can_be_repeated(results):
    """One network measured again, by the claims that take little time; another processor rounds a little otherwise."""
    network = _claims_measures.Network("vgg", 1)
    recorded = results["measurements"][claims.key("vgg", 1, True)]
    correlation, clustering = _claims_measures.correlation(network), _claims_measures.clustering(network)
    for name in ("effect", "lowest", "labels", "slope"):
        assert correlation[name] == pytest.approx(recorded["correlation"][name], abs=0.01), name
    assert correlation["chance"] < 0.02
    assert clustering["effect"] == pytest.approx(recorded["clustering"]["effect"], abs=0.02)
    leaning = _claims_measures.leaning(network)
    assert leaning["effect"] == pytest.approx(recorded["leaning"]["effect"], abs=0.04)


def test_every_row_names_a_chapter_that_there_is():
    notebooks = Path(claims.ROOT) / "notebooks"
    for row in claims.ROWS:
        assert (notebooks / f"{row.chapter}.ipynb").exists(), row.name
    assert {row.claim for row in claims.ROWS} == set(range(1, 9))


def planted(effect, control):
    """Measurements in which every effect and every control is a given number, but for a little spread over seeds."""
    found = {}
    for name, seed, pretrained in claims.jobs():
        entry = {}
        for row in claims.ROWS:
            if pretrained:
                entry.setdefault(row.effect[0], {})[row.effect[1]] = effect(name) + 0.01 * seed
            if row.control and row.untrained != pretrained:
                entry.setdefault(row.control[0], {})[row.control[1]] = control
        found[claims.key(name, seed, pretrained)] = entry
    return found


@pytest.mark.parametrize(
    ("effect", "control", "expected"),
    [
        (lambda name: 0.5, 0.1, "reproduced"),
        (lambda name: 0.5, 0.6, "not reproduced"),  # the control does as well
        (lambda name: -0.5, -0.6, "not reproduced"),
        (lambda name: 0.5 if name == "vgg" else -0.5, 0.1, "depends"),
    ],
)
def test_verdicts_of_planted_measurements(effect, control, expected):
    rows = {row["name"]: row for row in claims.summarise(planted(effect, control))}
    assert rows["correlation"]["verdict"] == expected
    assert rows["patching"]["verdict"] == expected


def test_holm_agrees_with_its_definition():
    p = [0.001, 0.01, 0.02, 0.04]
    assert claims.holm(p) == pytest.approx([0.004, 0.03, 0.04, 0.04])
    assert claims.holm(p[::-1]) == pytest.approx([0.04, 0.04, 0.03, 0.004])
    assert claims.holm([0.9, 0.8]) == [1.0, 1.0]


def test_students_interval_covers():
    rng = np.random.default_rng(0)
    draws = rng.normal(1.0, 2.0, size=(2000, 3))
    inside = [low < 1.0 < high for low, high in map(claims.student_interval, draws)]
    assert 0.93 < np.mean(inside) < 0.97


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    measured = []

    def measure(name, seed, *, pretrained):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append((name, seed, pretrained))
        return {"number": seed}

    monkeypatch.setattr(claims, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        claims.collect(tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert not list(tmp_path.glob("*.part"))
    first = list(measured)
    measured.clear()
    monkeypatch.setattr(claims, "measure", lambda name, seed, *, pretrained: measured.append((name, seed)) or {"n": 1})
    found = claims.collect(tmp_path, progress=False)
    assert len(found) == len(claims.jobs())
    assert len(measured) == len(claims.jobs()) - len(first)


def test_other_weights_are_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "measure", lambda *job, pretrained: {"n": 1})
    claims.collect(tmp_path, progress=False)
    path = next(tmp_path.glob("*.json"))
    path.write_text(path.read_text().replace('"stamp": "', '"stamp": "old '))
    again = []
    monkeypatch.setattr(claims, "measure", lambda *job, pretrained: again.append(job) or {"n": 1})
    claims.collect(tmp_path, progress=False)
    assert len(again) == 1
