"""Explorers answer to mouse, keyboard and touch: after each move every panel shows what its data say of the choice."""

import json

import pytest

from .conftest import HTML


def find_explorers() -> list[tuple[str, int]]:
    """Page and position of every explorer of the built book."""
    found = []
    for path in sorted((HTML / "notebooks").glob("*.html")):
        n = path.read_text(encoding="utf-8").count('<div class="nfcodes-explorer" data-title=')
        found += [(path.relative_to(HTML).as_posix(), i) for i in range(n)]
    return found


class Hand:
    """One explorer on an open page, and what its data say it should show."""

    def __init__(self, page, index):
        self.page, self.root = page, page.locator(".nfcodes-explorer").nth(index)
        self.root.scroll_into_view_if_needed()
        self.data = json.loads(self.root.locator("script[type='application/json']").text_content())
        self.state = {control["name"]: control["value"] for control in self.data["controls"]}

    def control(self, name):
        return self.root.locator(f"[data-control={name}]")

    def n_options(self, control):
        return control.get("n") or len(control["options"])

    def pick(self, data, by):
        for name in by or []:
            data = data[self.state[name]]
        return data

    def check(self):
        """Compare every panel with the data."""
        for panel in self.data["panels"]:
            shown = self.root.locator(f"[data-panel={panel['name']}]")
            by = panel.get("by")
            if panel["kind"] == "picture":
                wanted = self.pick(panel["pictures"], by)
                image = shown.locator("img")
                assert image.get_attribute("src") == wanted["src"]
                marked = self.pick(panel["marks"], panel["marks_by"]) if "marks" in panel else {"items": [], "text": ""}
                assert image.get_attribute("alt") == f"{wanted['alt']} {marked['text']}".strip()
                assert shown.locator("svg > *").count() == len(marked["items"])
                assert image.evaluate("i => i.naturalWidth") == wanted["width"]
                assert image.bounding_box() == shown.locator("svg").bounding_box()  # or marks would miss their units
                assert image.evaluate("i => getComputedStyle(i).padding") == "0px"
            elif panel["kind"] == "text":
                assert shown.text_content() == self.pick(panel["texts"], by)
            elif panel["kind"] == "images":
                labels = [label for _, label in self.pick(panel["items"], by)]
                tiles = shown.locator("[role=img]")
                assert [tile.get_attribute("aria-label") for tile in tiles.all()] == labels
            elif panel["kind"] == "bars":
                shares = self.pick(panel["shares"], by)
                values = ["–" if shares is None else f"{share:.2f}" for share in shares or panel["names"]]
                assert shown.locator(".nfx-value").all_text_contents() == values
            elif panel["kind"] == "table":
                rows = [cell for row in self.pick(panel["rows"], by) for cell in row]
                assert shown.locator("tbody :is(th, td)").all_text_contents() == rows


@pytest.fixture(params=find_explorers() or [None], ids=str)
def hand(request, visit):
    assert request.param, "expected explorers in the built chapters, found none"
    name, index = request.param
    tab = visit(width=390, has_touch=True, scheme="dark")
    found = Hand(tab.open(name), index)
    yield found
    assert tab.complaints == []
    assert tab.asked_elsewhere == []


def test_panels_show_the_first_choice(hand):
    hand.check()


def test_keyboard(hand):
    for control in hand.data["controls"]:
        name, last = control["name"], hand.n_options(control) - 1
        focus = "input[type=range], input:checked, [role=radio][tabindex='0']"
        hand.control(name).locator(focus).first.focus()
        for key in ("ArrowRight", "ArrowLeft"):
            step = 1 if key == "ArrowRight" else -1
            new = hand.state[name] + step
            if control["kind"] == "choice":
                new %= last + 1  # radio buttons go round
            hand.state[name] = new if 0 <= new <= last else hand.state[name]
            hand.page.keyboard.press(key)
            hand.check()
        if control["kind"] == "grid" and control["columns"]:
            columns = control["columns"]
            to = hand.state[name] - columns
            hand.page.keyboard.press("ArrowUp")
            hand.state[name] = to if to >= 0 else hand.state[name]
            hand.check()
        if control["kind"] != "choice":
            for key, at in (("Home", 0), ("End", last)):
                hand.page.keyboard.press(key)
                hand.state[name] = at
                hand.check()


@pytest.mark.parametrize("way", ["click", "tap"])
def test_pointer(hand, way):
    for control in hand.data["controls"]:
        name, last = control["name"], hand.n_options(control) - 1
        if control["kind"] == "slider":
            track = hand.control(name).locator("input[type=range]")
            box = track.bounding_box()
            getattr(track, way)(position={"x": box["width"] - 2, "y": box["height"] / 2})
            hand.state[name] = last
        else:
            options = hand.control(name).locator("label" if control["kind"] == "choice" else "[role=radio]")
            for at in {last, last // 2}:
                getattr(options.nth(at), way)()
                hand.state[name] = at
                hand.check()
        hand.check()


def test_play_runs_to_the_end(hand):
    for control in hand.data["controls"]:
        if control.get("play"):
            play = hand.control(control["name"]).locator(".nfx-play")
            hand.control(control["name"]).locator("input").press("End")
            hand.control(control["name"]).locator("input").press("ArrowLeft")
            play.click()
            assert play.text_content() == "Pause"
            hand.page.wait_for_function(
                "play => play.textContent === 'Play'", arg=play.element_handle(), timeout=10_000
            )
            hand.state[control["name"]] = len(control["options"]) - 1
            hand.check()


def test_every_control_has_a_name(hand):
    for control in hand.data["controls"]:
        part = hand.control(control["name"])
        assert part.get_by_text(control["label"], exact=True).count() == 1
        assert part.locator("input, [role=radio]").count() == (
            1 if control["kind"] == "slider" else hand.n_options(control)
        )
