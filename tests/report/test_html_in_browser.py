"""Pages as a browser reads them: no error, no request, no overflow, and what a reader can do with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases.results import made
from cases.web_pages import hostile

from fisherflat.pages import Code, Grid, Page, Points, Section, Value, html
from fisherflat.report import PAGE

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason="there is no browser to read pages in; install Debian's: apt-get install chromium chromium-driver",
    ),
    pytest.mark.xdist_group("results"),  # which are made once in a process
]

#: in which a page is read: pixels, and what the reader prefers
WINDOWS = [(1200, "light"), (1200, "dark"), (390, "light")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "hide-scrollbars"):
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def depth_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    made("many parts").save(folder)
    return folder / PAGE


@pytest.fixture(scope="module")
def analysis_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With names that are no names."""
    folder = tmp_path_factory.mktemp("analysis")
    made("hostile").save(folder)
    return folder / PAGE


def opened(browser: Any, page: Path, width: int = 1200, prefers: str = "light") -> Any:
    """The page once all of its charts have been drawn again; what the browser fetched and complained of is kept."""
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": prefers}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda at: at.execute_script("return document.documentElement.dataset.ready"))
    for figure in browser.find_elements("css selector", "figure.chart"):
        if figure.is_displayed():
            browser.execute_script("arguments[0].scrollIntoView()", figure)
            WebDriverWait(browser, 60).until(lambda _, figure=figure: figure.get_attribute("data-drawn"))
    return browser


def requests(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize(("width", "prefers"), WINDOWS)
@pytest.mark.parametrize("which", ["depth_page", "analysis_page"])
def test_nothing_is_fetched_or_wrong_and_all_is_within_the_window(
    browser: Any, request: pytest.FixtureRequest, which: str, width: int, prefers: str
) -> None:
    page = request.getfixturevalue(which)
    at = opened(browser, page, width, prefers)
    assert at.execute_script("return document.documentElement.scrollWidth") <= width
    assert requests(at) == [page.as_uri()]
    assert not at.get_log("browser")
    paper, ink = (
        sum(map(int, at.execute_script(f"return getComputedStyle(document.body).{name}")[4:-1].split(",")))
        for name in ("backgroundColor", "color")
    )
    assert (paper > ink) == (prefers == "light")


def test_a_chart_is_there_without_scripts(browser: Any, depth_page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(depth_page.as_uri())
        drawn = browser.find_elements("css selector", "figure.chart .drawn > svg")
        assert len(drawn) > 3 and all(one.size["height"] > 100 for one in drawn)
        assert all(choice.is_displayed() for choice in browser.find_elements("css selector", ".choice"))
        assert not browser.find_elements("css selector", "button, select")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_one_map_is_shown_at_a_time(browser: Any, depth_page: Path) -> None:
    from selenium.webdriver.support.ui import Select, WebDriverWait

    at = opened(browser, depth_page)
    choices = at.find_elements("css selector", ".choice")
    select = Select(at.find_element("css selector", ".pick select"))
    assert [choice.is_displayed() for choice in choices].count(True) == 1 and choices[-1].is_displayed()
    select.select_by_index(0)
    assert choices[0].is_displayed() and not choices[-1].is_displayed()
    figure = choices[0].find_element("css selector", "figure")
    WebDriverWait(at, 30).until(lambda _: figure.get_attribute("data-drawn"))
    assert select.first_selected_option.text == choices[0].get_attribute("data-name")


def test_a_chart_names_its_numbers_where_the_pointer_is(browser: Any, depth_page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    at = opened(browser, depth_page)
    figure = at.find_element("css selector", "figure.chart")
    mark = figure.find_elements("css selector", ".mark-symbol.role-mark path")[1]
    at.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    ActionChains(at).move_to_element(mark).perform()
    tip = at.find_element("css selector", ".tip")
    WebDriverWait(at, 20).until(lambda _: tip.is_displayed())
    data = json.loads(figure.find_element("css selector", ".spec").get_attribute("textContent"))["data"]["values"]
    names = [term.text for term in tip.find_elements("css selector", "dt")]
    told = dict(zip(names, [text.text for text in tip.find_elements("css selector", "dd")], strict=True))
    assert any(told["mean"] == row["shown"] and told["reading"] == row["reading"] for row in data)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a table whose order by number, by text and by size of text differ, and a command."""
    numbers = [10.0, -3.0, float("nan"), 9.5, 1e-12]
    rows = [
        [f"row {10 - i}", Value(number, f"≈{number:.0g}"), "b" if i % 2 else "a"] for i, number in enumerate(numbers)
    ]
    page = Page("t", "k", ["One."], [Section("s", [Grid("numbers", ["name", "value", "letter"], rows),
                                                   Code("fisherflat --version"), Points(hostile())])])  # fmt: skip
    file = tmp_path_factory.mktemp("made") / "page.html"
    file.write_text(html(page), encoding="utf-8")
    return file


def test_a_table_sorts_by_number_with_the_keyboard(browser: Any, made_up: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    at = opened(browser, made_up)

    def column(index: int) -> list[str]:
        return [row.find_elements("css selector", "th, td")[index].get_attribute("data-value") or
                row.find_elements("css selector", "th, td")[index].text
                for row in at.find_elements("css selector", "tbody tr")]  # fmt: skip

    heads = at.find_elements("css selector", "thead th")
    heads[1].find_element("css selector", "button").send_keys(Keys.ENTER)
    assert [float(value) for value in column(1)[:4]] == [-3.0, 1e-12, 9.5, 10.0] and column(1)[4] == "nan"
    assert heads[1].get_attribute("aria-sort") == "ascending"
    heads[1].find_element("css selector", "button").send_keys(Keys.ENTER)
    assert [float(value) for value in column(1)[:4]] == [10.0, 9.5, 1e-12, -3.0] and column(1)[4] == "nan"
    heads[0].find_element("css selector", "button").send_keys(Keys.SPACE)
    assert column(0) == [f"row {i}" for i in (6, 7, 8, 9, 10)]
    assert heads[1].get_attribute("aria-sort") is None and heads[0].get_attribute("aria-sort") == "ascending"


def test_a_command_is_copied(browser: Any, made_up: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    at = opened(browser, made_up)
    button = at.find_element("css selector", ".code button")
    # The browser answers in its own time, and the button says so for two seconds: what it says is kept for the test.
    at.execute_script(
        "const button = arguments[0];"
        "new MutationObserver(() => { button.dataset.said ??= button.textContent; })"
        ".observe(button, { childList: true });",
        button,
    )
    button.click()
    said = WebDriverWait(at, 60).until(lambda _: button.get_attribute("data-said"))
    assert said in ("Copied", "Selected")
    if said == "Selected":
        assert at.execute_script("return getSelection().toString()") == "fisherflat --version"


def test_the_first_stop_of_the_keyboard_leads_to_the_report(browser: Any, made_up: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    at = opened(browser, made_up)
    at.find_element("css selector", "body").send_keys(Keys.TAB)
    first = at.switch_to.active_element
    assert first.get_attribute("class") == "skip" and first.location["x"] >= 0
    first.send_keys(Keys.ENTER)
    assert at.current_url.endswith("#main")


def test_hostile_text_stays_text(browser: Any, made_up: Path) -> None:
    at = opened(browser, made_up)
    said = [item.text for item in at.find_elements("css selector", "main li")]
    assert any("<script>alert(1)</script>" in line for line in said) and any("{{7*7}}" in line for line in said)
    assert not at.get_log("browser")


def test_all_of_it_is_printed(browser: Any, depth_page: Path) -> None:
    at = opened(browser, depth_page)
    at.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert all(choice.is_displayed() for choice in at.find_elements("css selector", ".choice"))
        assert not any(one.is_displayed() for one in at.find_elements("css selector", ".code button, select, nav"))
        assert all(head.is_displayed() for head in at.find_elements("css selector", "thead th button"))
        size = {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # within the margins of A4
        at.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert at.execute_script("return document.documentElement.scrollWidth") <= 720
    finally:
        at.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
