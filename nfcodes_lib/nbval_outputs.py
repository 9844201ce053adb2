"""A pytest plugin: what the chapters show while nbval validates them is kept, so that the book need not execute them.

``pytest -p nfcodes_lib.nbval_outputs --nbval-lax notebooks`` (what ``make nbval`` runs) executes every chapter,
compares what is to be compared, and puts the outputs of those that passed whole into the cache from which
:mod:`nfcodes_lib.build_book` takes them. A chapter of which a cell failed, was skipped or was not selected is not kept;
the book then executes it itself, and says what is wrong with it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.displayhook import DisplayHook

from .build_book import keep_outputs, refresh_cache

SECONDS = pytest.StashKey[list[float]]()  # of each cell of a chapter that has passed


def pytest_configure(config: pytest.Config) -> None:
    """Empty the cache if it was filled with another library; once, not in every worker of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        refresh_cache(config.rootpath, cache_folder(config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Take the outputs of a cell that passed."""
    report = yield
    if call.when == "call" and report.passed and hasattr(item, "test_outputs"):
        seconds = item.parent.stash.setdefault(SECONDS, [])
        seconds.append(call.duration)
        item.cell.update(outputs=shown(item.cell.source, item.test_outputs), execution_count=len(seconds))
    return report


@pytest.hookimpl(tryfirst=True)  # while the kernel is still there
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last cell of a chapter, keep its outputs if all of its cells have passed."""
    if not hasattr(item, "test_outputs") or (nextitem is not None and nextitem.parent is item.parent):
        return
    chapter, seconds = item.parent, item.parent.stash.get(SECONDS, [])
    if len(seconds) == sum(cell.cell_type == "code" for cell in chapter.nb.cells):
        kernel = chapter.kernel.kc.kernel_info(reply=True, timeout=60)["content"]
        chapter.nb.metadata["language_info"] = kernel["language_info"]
        keep_outputs(chapter.nb, chapter.path, sum(seconds), cache_folder(item.config))


def shown(source: str, outputs: list) -> list:
    """The outputs of a cell, less the value that a last ";" hides; IPython looks for that in a history that is off."""
    if not DisplayHook.semicolon_at_end_of_expression(source):
        return outputs
    return [output for output in outputs if output.output_type != "execute_result"]


def cache_folder(config: pytest.Config) -> Path:
    """Where the book's outputs are kept."""
    return config.rootpath / "_build" / ".jupyter_cache"
