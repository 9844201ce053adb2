"""The chapters as files: what is committed of them, and that nbval would notice if the library changed under them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MARK = "NBVAL_CHECK_OUTPUT"


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(chapter):
    return [cell for cell in chapter.cells if cell.cell_type == "code"]


def test_enough_outputs_are_compared(chapter):
    assert sum(MARK in cell.source for cell in code_cells(chapter)) >= 3


def test_committed_outputs_are_text(chapter):
    for cell in code_cells(chapter):
        for output in cell.outputs:
            assert output.output_type in {"stream", "execute_result"}, cell.source
            assert output.get("name", "stdout") == "stdout", f"a warning is left in {cell.source}"
            assert set(output.get("data", {})) <= {"text/plain"}
        assert cell.execution_count, "nbval takes a cell without a count for one that was never run"


def test_figures_have_caption_and_alternative_text(chapter):
    for cell in code_cells(chapter):
        if re.search(r"^(ax = )?plots\.plot_|plt\.subplots", cell.source, flags=re.M):
            settings = cell.metadata.get("mystnb", {})
            assert settings.get("figure", {}).get("caption"), cell.source
            assert settings.get("image", {}).get("alt"), cell.source


def test_last_cell_asserts_what_the_text_claims(chapter):
    last = code_cells(chapter)[-1]
    assert "# Every number that the text claims" in last.source
    assert "assert " in last.source
    assert "hide-cell" in last.metadata.tags


def test_no_set_up_hides_in_a_chapter(chapter):
    for cell in code_cells(chapter):
        assert not re.search(r"pip install|sys\.path|rcParams|%matplotlib|warnings\.(simple)?filter", cell.source)


def run_nbval(folder, library):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", folder],
        env=os.environ | {"PYTHONPATH": str(library), "TQDM_DISABLE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_nbval_notices_a_changed_constant(tmp_path):
    """The beginning of chapter 1 passes with a copy of the library, and fails if pixels are scaled otherwise."""
    chapter = nbformat.read(ROOT / "notebooks" / "01_capture_codes.ipynb", as_version=4)
    first = next(i for i, cell in enumerate(chapter.cells) if cell.cell_type == "code" and MARK in cell.source)
    chapter.cells = chapter.cells[: first + 1]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(chapter, tmp_path / "notebooks" / "beginning.ipynb")
    shutil.copytree(ROOT / "nfcodes_lib", tmp_path / "nfcodes_lib", ignore=shutil.ignore_patterns("__pycache__"))
    unchanged = run_nbval(tmp_path / "notebooks", tmp_path)
    assert unchanged.returncode == 0, unchanged.stdout
    module = tmp_path / "nfcodes_lib" / "data.py"
    assert "div_(255)" in module.read_text()
    module.write_text(module.read_text().replace("div_(255)", "div_(85)"))
    changed = run_nbval(tmp_path / "notebooks", tmp_path)
    assert changed.returncode == 1
    assert "test accuracy" in changed.stdout, "the report shows the output that moved"
