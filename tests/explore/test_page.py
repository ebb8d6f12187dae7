"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from served_page import Served, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
    pytest.mark.slow,
]
PATIENCE_MS = 120_000  # on a crowded machine
NAMED_ROLES = ("slider", "button", "combobox", "radio", "progressbar", "spinbutton", "link")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The page, opened by the printed link, at the first plan; what it says on the console is an error."""
    made = browser.new_page(viewport={"width": 1280, "height": 800})
    made.set_default_timeout(PATIENCE_MS)
    said: list[str] = []
    made.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: said.append(str(error)))
    made.goto(server.link)
    settled(made)
    yield made
    made.close()
    assert [text for text in said if "net::ERR_INTERNET_DISCONNECTED" not in text] == []


def settled(page: Page, plan: int | None = None) -> None:
    """Waits until nothing is computed, at a plan if one is given."""
    shown = "" if plan is None else f"[data-plan='{plan}']"
    page.wait_for_selector(f"body[data-busy='']{shown}")


def move(page: Page, wish: str, keys: str, times: int) -> None:
    """Moves a slider by the keyboard."""
    page.locator(f"#wish-{wish}").focus()
    for _ in range(times):
        page.keyboard.press(keys)


def newest(server: Served) -> int:
    return max(server.session.plans, default=0)


def test_a_wish_makes_a_new_plan_that_undo_takes_back(page: Page, server: Served) -> None:
    """The rectum's mean falls, the plan keeps the limits, and it can be pinned, undone, exported and read back."""
    before, number = server.session.current, newest(server) + 1
    assert before is not None
    page.get_by_role("button", name="Pin plan").click()
    move(page, "Rectum", "ArrowRight", 8)
    settled(page, number)
    after = server.session.current
    assert after is not None and after.figures["Rectum mean (Gy)"] < before.figures["Rectum mean (Gy)"]
    page.wait_for_selector(f"#figures[data-plan='{number}'][data-violations='0']")
    page.wait_for_selector(f"#dvh[data-of='plan {number}']")
    assert page.locator("#pinned tbody tr").count() > 5
    assert page.locator("#tradeoff circle").count() == len(server.session.plans)
    page.get_by_role("radio", name="Difference").check()
    page.wait_for_selector(f"#plane-axial[data-shown*='/plans/{number}/slices/axial/'][data-shown*='against=']")
    page.get_by_role("radio", name="Dose", exact=True).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        plan = pydicom.dcmread(io.BytesIO(archive.read("RTPLAN.dcm")))
    assert plan.Modality == "RTPLAN" and plan.ApprovalStatus == "UNAPPROVED"
    meterset = sum(float(beam.BeamMeterset) for beam in plan.FractionGroupSequence[0].ReferencedBeamSequence)
    assert meterset == pytest.approx(float(after.plan.mu.sum()), rel=1e-3)
    page.get_by_role("button", name="Undo").click()
    settled(page, before.number)
    assert page.locator("#wish-Rectum").input_value() == "0"


def test_a_reload_in_the_middle_of_a_computation_shows_it(page: Page, server: Served) -> None:
    plans = newest(server)
    server.session.change(evaluations=200)
    with page.expect_response(lambda _: server.session.settings.wishes.get("Bladder") == 2):  # the last movement is in
        move(page, "Bladder", "ArrowRight", 4)
    page.wait_for_selector("body[data-busy='planning']")
    page.reload()
    page.wait_for_selector("body[data-busy='planning']")
    assert page.get_by_role("progressbar").is_visible()
    assert page.locator("#wish-Bladder").input_value() == "1"
    page.get_by_role("button", name="Undo").click()
    settled(page)
    assert page.locator("#wish-Bladder").input_value() == "0" and newest(server) == plans
    server.session.change(evaluations=6)


def test_two_tabs_see_the_same_state(page: Page, server: Served, browser: Browser) -> None:
    other = browser.new_page()
    other.set_default_timeout(PATIENCE_MS)
    other.goto(server.link)
    settled(other)
    number = newest(server) + 1
    move(page, "homogeneity", "ArrowLeft", 3)
    settled(other, number)
    assert other.locator("#wish-homogeneity").input_value() == "-0.75"
    other.close()


def test_a_lost_connection_loses_nothing(page: Page, server: Served) -> None:
    number = newest(server) + 1
    page.context.set_offline(True)
    server.session.change(wishes={"PTV": 1.5})
    server.session.wait()
    page.context.set_offline(False)
    page.reload()
    settled(page, number)
    assert page.locator("output[for='wish-PTV']").inner_text().endswith("1.5")
    page.get_by_role("button", name="all to 1").click()
    settled(page, number + 1)


def test_layers_can_be_hidden(page: Page) -> None:
    page.wait_for_selector("#plane-axial .isodose")
    page.get_by_role("checkbox", name="Show Isodoses").uncheck()
    assert not page.locator("#plane-axial .isodose").first.is_visible()
    page.get_by_role("checkbox", name="Show Isodoses").check()
    assert page.locator("#plane-axial .isodose").first.is_visible()


def test_the_keyboard_reaches_everything(page: Page) -> None:
    """Tab visits every control that is enabled; arrow keys scroll a plane; Ctrl+Z is undo."""
    seen = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("() => document.activeElement.id"))
    wanted = {"pin", "export", "wish-Rectum", "planner", "evaluations", "plane-axial", "plane-coronal", "across", "up"}
    assert wanted <= seen
    plane = page.locator("#plane-axial")
    plane.focus()
    at = int(plane.get_attribute("aria-valuenow") or 0)
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(f"#plane-axial[data-shown*='/slices/axial/{at}?']")
    assert plane.get_attribute("aria-valuenow") == str(at + 1)
    position = page.evaluate("() => document.body.dataset.plan")
    page.keyboard.press("Control+z")
    page.wait_for_selector(f"body:not([data-plan='{position}'])")


def test_the_wheel_scrolls_a_plane(page: Page) -> None:
    plane = page.locator("#plane-coronal")
    at = int(plane.get_attribute("aria-valuenow") or 0)
    plane.hover()
    page.mouse.wheel(0, 120)
    page.wait_for_selector(f"#plane-coronal[aria-valuenow='{at - 3}']")


def test_apertures_play(page: Page) -> None:
    page.get_by_role("radio", name="Apertures").check()
    page.wait_for_selector("#cine svg")
    first = page.locator("#gantry-text").inner_text()
    assert re.fullmatch(r"Gantry \d+° · [\d.]+ MU", first)
    page.get_by_role("button", name="Play").click()
    page.wait_for_selector(f"#gantry-text:not(:text-is('{first}'))")
    page.get_by_role("button", name="Pause").click()


def test_every_control_has_a_name(page: Page) -> None:
    """As a screen reader hears it, from the browser's own tree of accessible names."""
    snapshot = page.locator("body").aria_snapshot()
    controls = [line.strip("- ") for line in snapshot.splitlines() if line.strip("- ").startswith(NAMED_ROLES)]
    assert len(controls) > 25
    assert [line for line in controls if not re.match(r'\w+ "[^"]+', line)] == []
    assert 'slider "Rectum"' in snapshot and 'slider "Axial slice"' in snapshot


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_a_narrow_window_needs_no_scrolling_to_the_side(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
