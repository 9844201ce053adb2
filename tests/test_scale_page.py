"""The figures of the page on scale are those of the committed measurement, not of somebody's memory."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MEASURED = json.loads((ROOT / "tests" / "benchmarks" / "som-epyc-2-cores.json").read_text())
PAGE = (ROOT / "book" / "scale.md").read_text(encoding="utf-8")
SAMPLES, FEATURES, UNITS, EPOCHS = 1_280_000, 2048, 50 * 50, 20


def gflops_reached():
    """What the search of the torch backend reached on the largest data of the benchmark."""
    row = next(row for row in MEASURED["rows"] if row["row"][:2] == [60_000, 512])
    return row["gflops"] / row["tools"]["torch"]["times_floor"]


def test_sizing_table_follows_from_the_measured_rate():
    rate = gflops_reached()
    assert f"{rate:.0f} GFLOP/s" in PAGE
    lines = re.findall(r"^\| (\d+) \| ([\d.]+) GB \| ([\d.]+) min \| (\d+) MB \|$", PAGE, flags=re.M)
    assert [int(line[0]) for line in lines] == [1, 4, 16]
    for processes, gigabytes, minutes, exchanged in lines:
        share = SAMPLES / int(processes)
        seconds = 2 * share * FEATURES * UNITS * (EPOCHS + 1) / (rate * 1e9)
        assert abs(float(gigabytes) - share * FEATURES * 4 / 1e9) < 0.051
        assert abs(float(minutes) - seconds / 60) < 0.051
        assert int(exchanged) == round(UNITS * (FEATURES + 1) * 4 / 1e6)


def test_times_are_those_measured():
    lines = re.findall(
        r"^\| ([\d,]+) × ([\d,]+) \| (\d+) × \3, (\d+) \| ([\d.]+) \| ([\d.]+) "
        r"\| ([+−]?[\d.]+) % \| ([\d.]+) \| ([\d.]+) \|$",
        PAGE,
        flags=re.M,
    )
    assert len(lines) == len(MEASURED["rows"])
    for line, row in zip(lines, MEASURED["rows"], strict=True):
        assert [int(number.replace(",", "")) for number in line[:4]] == row["row"]
        tools = [row["tools"][name] for name in ("somoclu", "intrasom", "torch", "torch int8")]
        told = [line[7], line[8], line[4], line[5]]
        assert told == [f"{tool['seconds']:.2f}" for tool in tools]
        more = 100 * (tools[3]["quantization_error"] / tools[2]["quantization_error"] - 1)
        assert abs(float(line[6].replace("−", "-")) - more) < 0.0051
        assert tools[3]["seconds"] < tools[2]["seconds"] < tools[1]["seconds"] < tools[0]["seconds"]
        order = [tool["topographic_error"] for tool in tools[2:]]
        if row["row"][1] >= 512:
            assert abs(order[0] - order[1]) < 0.01
        if row["row"][1] == 64:
            assert f"is {order[1]:.2f} with `int8` and {order[0]:.2f} without" in PAGE
        torn = row["tools"]["xpysom"]["topographic_error"] / tools[2]["topographic_error"]
        assert 1.45 < torn < 2.55


def test_emergent_map_took_what_the_page_says():
    ours, theirs = (MEASURED["emergent"][name] for name in ("torch", "somoclu"))
    assert f"took {ours['seconds']:.0f} s for two epochs, and {ours['peak_gib_beyond_data']:.2f} GiB" in PAGE
    assert f"kernel took {theirs['seconds']:.0f} s and {theirs['peak_gib_beyond_data']:.2f} GiB" in PAGE
    assert ours["peak_gib_beyond_data"] < 2
