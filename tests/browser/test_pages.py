"""Every page of the built book: whole, without another host, readable on a phone, by keyboard and by screen reader."""

import json
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from .conftest import HTML, Visit, page_names

LIMIT = 8e6  # bytes of a page's own HTML and images: fonts and MathJax are loaded once for all pages
VIEWS = list(product(page_names(), [(390, "light"), (1280, "dark")]))


@pytest.fixture(scope="session")
def axe():
    from axe_playwright_python.sync_playwright import Axe

    return Axe()


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1][0]}-{view[1][1]}")
def view(request, browser, address):
    """One page at one width in one colour scheme, with what happened while it loaded; all tests of it share it."""
    name, (width, scheme) = request.param
    tab = Visit(browser, address, width=width, scheme=scheme)
    tab.name, tab.width, tab.scheme = name, width, scheme
    tab.open(name)
    yield tab
    tab.context.close()


def test_page_is_whole(view):
    assert view.complaints == []
    assert view.failed == []
    assert view.asked_elsewhere == []
    broken = "all => all.filter(i => !i.naturalWidth).map(i => i.src.slice(0, 100))"
    assert view.page.eval_on_selector_all("img", broken) == []


def test_page_does_not_scroll_sideways(view):
    assert view.page.evaluate("document.documentElement.scrollWidth") <= view.width
    beyond = """width => [...document.querySelectorAll('article *')].filter(e => {
        const box = e.getBoundingClientRect();
        if (box.right <= width + 1 || box.width < 2) return false;
        for (let p = e; p; p = p.parentElement)
            if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(p).overflowX)) return false;
        return true;
    }).map(e => e.outerHTML.slice(0, 120))"""
    assert view.page.evaluate(beyond, view.width) == []


def test_no_serious_barrier(view, axe):
    assert view.page.evaluate("document.documentElement.dataset.theme") == view.scheme
    serious = [
        f"{rule['id']} ({len(rule['nodes'])}): {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in axe.run(view.page).response["violations"]
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"][:3]
    ]
    assert serious == [], "\n".join(serious)


def test_screenshot(view):
    """Leaves pictures for a person to look at, in _build/screenshots; all that is tested is that they are not blank."""
    folder = HTML.parent / "screenshots"
    folder.mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        view.page.emulate_media(color_scheme=scheme)
        view.page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        path = folder / f"{slug(view.name)}-{view.width}-{scheme}.jpg"
        whole = view.page.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": view.width, "height": min(whole, 15_000)}  # Chromium draws no taller ones
        view.page.screenshot(path=path, full_page=True, clip=clip, type="jpeg", quality=60, timeout=60_000)
        assert path.stat().st_size > 5_000


def test_page_is_light(view):
    """Weight and time to interactive go to _build/weights.json; the weight has a limit."""
    own = sum(size for url, size in view.sizes() if "/_static/" not in url)
    timing = "performance.getEntriesByType('navigation')[0]"
    ready = view.page.evaluate("performance.getEntriesByName('nfcodes-explorers-ready')[0]?.startTime")
    record = {
        "page_bytes": own,
        "all_bytes": sum(size for _, size in view.sizes()),
        "interactive_ms": round(view.page.evaluate(f"{timing}.domInteractive")),
        "explorers_ready_ms": None if ready is None else round(ready),
        "loaded_ms": round(view.page.evaluate(f"{timing}.loadEventEnd")),
    }
    path = HTML.parent / "weights.json"
    records = json.loads(path.read_text()) if path.is_file() else {}
    records[f"{view.name} {view.width} {view.scheme}"] = record
    path.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    assert own < LIMIT, f"{view.name} weighs {own / 1e6:.1f} MB"


class Links(HTMLParser):
    """Collects the targets of links, the names that they can lead to, and images without alternative text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names, self.mute = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.names |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])
        if tag == "img" and not (attributes.get("alt") or "").strip():
            self.mute.append(attributes.get("src"))


@pytest.fixture(scope="module")
def links():
    """Page -> its links and names."""
    return {path.resolve(): Links(path.read_text(encoding="utf-8")) for path in HTML.rglob("*.html")}


@pytest.mark.parametrize("name", page_names())
def test_links_lead_somewhere(links, name):
    here = (HTML / name).resolve()
    for link in links[here].links:
        target = urlsplit(link)
        if target.scheme or target.netloc:
            assert re.fullmatch(r"https?|mailto", target.scheme), link
            continue
        path = (here.parent / unquote(target.path)).resolve() if target.path else here
        assert path.is_file(), f"{name} links to {link}"
        if target.fragment and path.suffix == ".html":
            assert unquote(target.fragment) in links[path].names, f"{name} links to {link}"


@pytest.mark.parametrize("name", page_names())
def test_images_have_alternative_text(links, name):
    own = [src for src in links[(HTML / name).resolve()].mute if "/_static/" not in f"/{src}"]
    assert own == []


def slug(name: str) -> str:
    return Path(name).with_suffix("").as_posix().replace("/", "-")
