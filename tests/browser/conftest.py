"""The built book, served from this machine, in Debian's Chromium with every other host blocked.

Skipped, and said so, where there is no Chromium or no built book; where ``NFCODES_BROWSER=required`` (``make browser``
in CI sets it), that is a failure instead.
"""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
IGNORED_PAGES = {"genindex.html", "index.html"}  # Sphinx's own; index.html forwards to the introduction


def lack() -> str:
    """What is missing for these tests, or an empty text."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install playwright axe-playwright-python"
    if chromium() is None:
        return "no Chromium: apt-get install chromium, or name one in $CHROMIUM"
    if not (HTML / "index.html").is_file():
        return "no built book in _build/html: make book"
    return ""


def chromium() -> str | None:
    """The browser's program."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def page_names() -> list[str]:
    """Every page of the built book, chapters and prose, and the search page."""
    found = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html") if "_static" not in path.parts)
    return [name for name in found if name not in IGNORED_PAGES] or ["no page"]


@pytest.fixture(scope="session", autouse=True)
def _there_is_a_browser():
    missing = lack()
    if missing and os.environ.get("NFCODES_BROWSER") == "required":
        pytest.fail(f"the browser tests are required here, but there is {missing}")
    if missing:
        pytest.skip(missing)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def address():
    """Where the book is served."""
    handler = functools.partial(QuietHandler, directory=HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]  # CI runs as root in a container
        found = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield found
        found.close()


class Visit:
    """A page in the browser, with all that it asked for and complained of."""

    def __init__(self, browser, address, *, width=1280, scheme="light", **options):
        self.address, self.asked_elsewhere, self.failed, self.complaints, self._answers = address, [], [], [], []
        self.context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        self.context.route("**/*", self._guard)
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._note)

    def _note(self, answer):
        self._answers.append(answer)
        if answer.status >= 400:
            self.failed.append(answer.url)

    def sizes(self):
        """Each file that was loaded, and its bytes."""
        return [(answer.url, answer.request.sizes()["responseBodySize"]) for answer in self._answers]

    def _guard(self, route):
        url = route.request.url
        if url.startswith((self.address, "data:", "blob:")):
            return route.continue_()
        self.asked_elsewhere.append(url)
        return route.abort()

    def open(self, name):
        self.page.goto(f"{self.address}/{name}", wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self.page


@pytest.fixture
def visit(browser, address):
    """visit(width=..., scheme=...) opens a fresh tab; closed after the test."""
    opened = []

    def start(**options):
        opened.append(Visit(browser, options.pop("address", address), **options))
        return opened[-1]

    yield start
    for each in opened:
        each.context.close()
