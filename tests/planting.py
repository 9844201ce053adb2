"""Broken installations to try the set-up on, planted in a temporary folder that comes first on PYTHONPATH."""

import os
from pathlib import Path

HIDE = """
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name in {hidden!r} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""


def environment(folder: Path) -> dict[str, str]:
    """Environment of a process whose imports look into `folder` first."""
    return {**os.environ, "PYTHONPATH": str(folder)}


def hide(folder: Path, *modules: str) -> dict[str, str]:
    """Environment of a process (and its children) that finds everything installed except `modules`."""
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=modules))
    return environment(folder)


def break_module(folder: Path, module: str, body: str) -> dict[str, str]:
    """Environment of a process in which importing `module` runs `body` instead."""
    (folder / f"{module}.py").write_text(body)
    return environment(folder)
