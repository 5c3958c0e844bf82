"""The report page in a real browser: the system's Chromium, where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from exporter.report.html import to_html, to_index_html
from tests.builders.pictured_reports import BOXES, CONFUSION, sample
from tests.builders.reports import FAILING, PASSING

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser; pages close after each test, so that none slows the next down."""
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "passing": to_html(
            replace(
                PASSING,
                worst_samples=(sample(0.25, 0.5),),
                box_pictures=(BOXES,),
                confusions=(CONFUSION,),
            )
        ),
        "failing": to_html(FAILING),
        "index": to_index_html({"pets": PASSING, "none": FAILING}),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def opened(browser: Browser, file: Path, size: str = "desktop", scheme: str = "light") -> Page:
    """The page; its console must stay silent, and it must request nothing but itself."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.on("console", lambda message: pytest.fail(f"console: {message.text}"))
    page.on("pageerror", lambda error: pytest.fail(f"error: {error}"))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    assert requests == [file.as_uri()]
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["passing", "failing", "index"])
def test_nothing_overflows_and_everyone_can_read_it(
    browser: Browser, files: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    page = opened(browser, files[name], size, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= SIZES[size][0]
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_search_and_sort(browser: Browser, files: dict[str, Path]) -> None:
    page = opened(browser, files["passing"])
    rows = page.locator("#units-1 tbody tr")
    assert rows.count() == 10
    page.get_by_label("Search").fill("sea")
    assert rows.locator("visible=true").count() == 1
    assert page.get_by_role("status").inner_text() == "1 of 10 units"
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Original").click()
    page.get_by_role("button", name="Original").click()  # descending
    assert rows.first.locator("td").first.inner_text() == "9"
    page.get_by_role("button", name="Label").click()
    assert rows.first.locator("td").nth(2).inner_text() == "cat"  # units without a label are last


def test_values_without_a_limit_appear_on_request(browser: Browser, files: dict[str, Path]) -> None:
    page = opened(browser, files["passing"])
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    hidden = page.locator("tr.information")
    assert hidden.count() == 1
    assert not hidden.is_visible()
    page.get_by_label("Show values without a limit").first.check()
    assert hidden.is_visible()


def test_without_scripts_everything_can_be_read(browser: Browser, files: dict[str, Path]) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(files["passing"].as_uri())
    assert page.locator("#units-1 tbody tr").locator("visible=true").count() == 10
    assert not page.get_by_label("Search").is_visible()


def test_the_policy_stops_other_scripts(browser: Browser, files: dict[str, Path]) -> None:
    """A sabotaged page: the browser refuses a script that is not the page's own."""
    page = files["passing"].with_name("evil.html")
    text = files["passing"].read_text("utf-8")
    page.write_text(text.replace("</main>", "<script>document.title = 'evil';</script></main>"))
    tab = browser.new_context().new_page()
    refused: list[str] = []
    tab.on("console", lambda message: refused.append(message.text))
    tab.goto(page.as_uri())
    assert tab.title() != "evil"
    assert any("Content Security Policy" in text for text in refused)
