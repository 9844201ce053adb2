"""A chapter in JupyterLab, as a reader runs it: fresh kernel, Run All Cells, every cell done, no error."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from .conftest import ROOT

CHAPTER = "01_capture_codes.ipynb"
PROMISED = 240  # seconds: what chapter 1 promises, with room for a machine that does other things too


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab of this environment over a copy of the chapter; yields its address."""
    (tmp_path / "notebooks").mkdir()
    chapter = json.loads((ROOT / "notebooks" / CHAPTER).read_text(encoding="utf-8"))
    for cell in chapter["cells"]:  # what is counted and shown must come from this run
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    (tmp_path / "notebooks" / CHAPTER).write_text(json.dumps(chapter), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={tmp_path / 'notebooks'}",
    ]  # fmt: skip
    own = {"JUPYTER_PREFER_ENV_PATH": "1", "JUPYTERLAB_SETTINGS_DIR": str(tmp_path), "HOME": str(tmp_path)}
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/api?token={token}", timeout=5)
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail(f"JupyterLab did not start: {(tmp_path / 'lab.log').read_text()[-2000:]}")
            yield f"{address}/lab/tree/{CHAPTER}?token={token}"
        finally:
            server.terminate()
            server.wait(30)


def test_a_chapter_runs_from_top_to_bottom_in_jupyterlab(lab, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")
    began = time.monotonic()
    state = """() => {
        const cells = jupyterapp.shell.currentWidget.content.model.cells;
        const code = [...Array(cells.length).keys()].map(i => cells.get(i)).filter(c => c.type === 'code');
        const errors = code.flatMap(c => c.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.evalue));
        const done = code.filter(c => c.executionCount > 0 && c.executionState !== 'running').length;
        return {done, all: code.length, last: code[code.length - 1].executionCount, errors};
    }"""
    while time.monotonic() - began < PROMISED:
        time.sleep(1)
        seen = page.evaluate(state)
        if seen["errors"] or seen["last"]:
            break
    context.close()
    assert seen["errors"] == []
    assert seen["last"] == seen["all"] == seen["done"], seen
