"""The book from a file system: no server, no network, and still search, formulas and explorers."""

import pytest

from .conftest import HTML


@pytest.fixture
def from_disk(visit):
    return visit(address=HTML.as_uri())


def test_search_finds_a_word_of_a_chapter(from_disk):
    page = from_disk.open("search.html?q=quantization")
    page.get_by_role("link", name="Training a SOM", exact=True).and_(page.locator("#search-results a")).wait_for(
        timeout=10_000
    )  # one result after the other comes up
    assert from_disk.asked_elsewhere == []


def test_formulas_are_set(from_disk):
    page = from_disk.open("notebooks/02_train_soms.html")
    assert page.locator("mjx-container").count() > 5
    assert from_disk.complaints == []
    assert from_disk.asked_elsewhere == []


def test_explorers_answer(from_disk):
    page = from_disk.open("notebooks/02_train_soms.html")
    picture = page.locator(".nfcodes-explorer [data-panel=codebook] img")
    before = picture.get_attribute("src")
    page.locator(".nfcodes-explorer input[type=range]").press("End")
    assert picture.get_attribute("src") != before
