"""What this book adds to its pages, and takes from them: a Sphinx extension.

- Nothing may be asked of another host when a page is read. Jupyter Book loads sphinx-thebe unasked, which names one; it
  is taken out again.
- Each chapter says how long it ran when the book was built, as ``build_book.py`` has measured it.
- Buttons that open a chapter in Binder or Colab need the address of a public copy. A build for the public names it in
  ``NFCODES_REPOSITORY`` (``owner/name`` on GitHub); any other has no buttons, rather than ones that lead nowhere.
- Docstrings write lengths as ``|x|``, which reStructuredText takes for something else; the API page leaves them alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def silence_thebe(app, config) -> None:
    """Before it does anything, take out every handler and style sheet that sphinx-thebe has registered."""
    app.registry.css_files[:] = [each for each in app.registry.css_files if "thebe" not in each[0]]
    for listeners in app.events.listeners.values():
        listeners[:] = [each for each in listeners if not each.handler.__module__.startswith("sphinx_thebe")]


def add_launch_buttons(app, config) -> None:
    """Buttons for Binder and Colab, if the build is told where the public copy lies."""
    repository = os.environ.get("NFCODES_REPOSITORY")
    if repository:
        config.html_theme_options |= {
            "repository_url": f"https://github.com/{repository}",
            "repository_branch": "main",
            "path_to_docs": "",
            "use_repository_button": True,
            "launch_buttons": {
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
                "notebook_interface": "jupyterlab",
            },
        }


def add_running_time(app, pagename, templatename, context, doctree) -> None:
    """Under the title of a chapter: how long its cells ran."""
    seconds = running_times(Path(app.outdir).parent).get(pagename)
    if seconds is not None and "body" in context:
        line = f'<p class="running-time">Its cells ran in {seconds:.0f} s when this page was built.</p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def mend_lists(app, pagename, templatename, context, doctree) -> None:
    """Take the roles off lists of citations: docutils writes a list whose children are no list items."""
    if "body" in context:
        for role in (' role="list"', ' role="doc-biblioentry"'):
            context["body"] = context["body"].replace(role, "")


def let_tables_scroll(app, pagename, templatename, context, doctree) -> None:
    """A wide table scrolls on a narrow screen; who has no pointer must be able to go there."""
    if "body" in context:
        context["body"] = context["body"].replace('<table class="table', '<table tabindex="0" class="table')


def keep_bars(app, what, name, obj, options, lines) -> None:
    """Escape the bars of ``|x|`` in docstrings, but for code."""
    lines[:] = [line if "``" in line or ">>>" in line else line.replace("|", "\\|") for line in lines]


def skip_metadata_requests(app, what, name, obj, skip, options) -> bool | None:
    """Leave out the methods ``set_..._request`` that scikit-learn gives every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def running_times(build: Path) -> dict[str, float]:
    """Page -> seconds, from the record that ``build_book.py`` leaves in the build's folder; empty without one."""
    record = build / "running_times.json"
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def setup(app) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", silence_thebe)
    app.connect("config-inited", add_launch_buttons, priority=100)  # before the theme reads its options
    app.connect("html-page-context", add_running_time)
    app.connect("html-page-context", mend_lists)
    app.connect("html-page-context", let_tables_scroll)
    if "sphinx.ext.autodoc" in app.extensions:
        app.connect("autodoc-skip-member", skip_metadata_requests)
        app.connect("autodoc-process-docstring", keep_bars, priority=900)  # after numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
