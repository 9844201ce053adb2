"""What the README promises runs as it stands there."""

import re
from pathlib import Path

import pytest

import nfcodes_lib as nf

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run(resnet, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    for there, here in (
        ("model, images = ...", "model, images = given"),
        ("n_rows=20, n_columns=20", "n_rows=5, n_columns=6"),
        ("n_units=400", "n_units=30"),
    ):
        assert there in code
        code = code.replace(there, here)
    names = {"given": (resnet, nf.load_images("test", n_samples=600)[0])}
    exec(compile(code, "README.md", "exec"), names)
    assert names["units"].shape == (600,)
    printed = capsys.readouterr().out
    assert "CodeAccuracy(" in printed
    assert "Association(" in printed


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("command", ["book", "test", "lab"])
def test_commands_are_targets_of_the_makefile(command):
    assert f"make {command}" in README
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), flags=re.M)
