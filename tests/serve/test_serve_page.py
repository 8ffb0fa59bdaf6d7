"""The web page in a real browser: its three tabs, its languages, the keyboard, a phone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import PATIENCE, Running, running

from normistral.inference import LoadedModel
from normistral.serve.app import PAGE_FILES
from normistral.serve.guards import SECURITY_HEADERS
from normistral.serve.settings import ServerSettings

if TYPE_CHECKING:
    from conftest import TaughtModel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = Path(__file__).parents[2] / "src" / "normistral" / "serve" / "page"

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def test_the_page_asks_for_nothing_of_elsewhere() -> None:
    for file in PAGE.iterdir():
        assert file.name == "index.html" or file.name in PAGE_FILES
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), (
            file.name
        )


def test_both_languages_say_everything() -> None:
    texts = (PAGE / "texts.js").read_text(encoding="utf-8")
    first, second = texts.split("\n  nb: {")[1].split("\n  en: {")
    keys = [
        set(re.findall(r"(?<![\w.])(\w+):(?= [\"(])", part.split("\n  }")[0])) for part in (first, second)
    ]
    assert keys[0] == keys[1]
    used = set(re.findall(r'data-(?:text|label)="(\w+)"', (PAGE / "index.html").read_text(encoding="utf-8")))
    assert len(used) > 30
    assert used <= keys[0]


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_text_stands_out_in_light_and_in_dark() -> None:
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in style.split("@media")[:2]
    )
    tones = ["t0", "t1", "t2", "t3"]
    pairs = [(ink, ground) for ink in ("ink", "soft") for ground in ("paper", "sheet", *tones)]
    pairs += [("ink", "mark"), ("accent-ink", "accent"), ("accent-ink", "accent-deep"), ("bad", "bad-soft")]
    pairs += [("accent-deep", "accent-soft"), ("accent-deep", "paper"), ("accent", "sheet")]
    for theme in (light, dark):
        for ink, ground in pairs:
            bright, dim = sorted((luminance(theme[ink]), luminance(theme[ground])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)
        for edge in ("field", "accent", "mark-line"):  # what shows where something is: 3 to 1
            bright, dim = sorted((luminance(theme[edge]), luminance(theme["paper"])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 3, edge


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, llama_server: Running) -> Iterator[Any]:
    """The page on a phone, in Bokmål; it must log nothing and ask nobody else."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, locale="nb-NO", has_touch=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    faults: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{llama_server.url}/")
    page.locator("#engine", has_text="llama.cpp").wait_for(state="attached")
    yield page
    context.close()
    assert faults == []
    assert all(url.startswith(llama_server.url) for url in asked)


def is_as_wide_as_the_phone(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth") <= 360)


@in_browser
def test_write_continues_translates_and_stops(page: Any, taught: TaughtModel) -> None:
    assert page.locator("html").get_attribute("lang") == "nb"
    assert page.locator("#model").inner_text() == "taught"
    page.locator("input[value=translate]").check()
    page.locator("#prompt").fill("I like coffee.")
    page.locator("#prompt").press("Control+Enter")
    page.locator("#write-status", has_text="Ferdig").wait_for()
    assert page.locator("#written-text").inner_text() == taught.translation.strip()
    assert page.locator("#written").get_attribute("aria-busy") == "false"
    assert is_as_wide_as_the_phone(page)

    page.locator("input[value=continue]").check()
    assert page.locator("#written-box").is_hidden()
    page.locator("#prompt").fill("Oslo er")
    page.locator("summary").click()
    page.locator("#length").fill("5")
    page.locator("#go").click()
    page.locator("#write-status", has_text="Ferdig: 5 tokener").wait_for()
    page.locator("#go-on").click()
    page.locator("#write-status", has_text="Ferdig").wait_for()
    assert page.locator("#written-prompt").inner_text().startswith("Oslo er")

    page.route("**/v1/completions", lambda route: None)  # a server that keeps one waiting
    page.locator("#go").click()
    page.locator("#stop").click()
    page.locator("#write-status", has_text="Stoppet").wait_for()
    assert page.locator("#go").is_enabled()
    assert is_as_wide_as_the_phone(page)


@in_browser
def test_read_fills_masks_and_shows_what_else_could_stand_there(page: Any, taught: TaughtModel) -> None:
    page.locator("#tab-write").focus()
    page.keyboard.press("ArrowRight")  # tabs are moved through with the arrow keys
    assert page.locator("#tab-read").get_attribute("aria-selected") == "true"
    assert page.locator("#write").is_hidden()
    whole = taught.masked_sentence.replace("<mask>", " de")
    page.locator("#masked").fill(whole)
    start = whole.index("de ")
    page.locator("#masked").evaluate("(field, at) => field.setSelectionRange(at, at + 3)", start)
    page.locator("#hide").click()
    assert page.locator("#masked").input_value() == taught.masked_sentence
    page.locator("#fill").click()
    word = page.locator(".filled > button")
    assert word.inner_text() == "de"
    assert page.locator("#filled").inner_text().startswith("En søt lundefugl flyr over de")
    choices = page.locator(".choices")
    assert choices.is_hidden()
    word.hover()
    assert choices.is_visible()
    assert word.get_attribute("aria-expanded") == "true"
    assert not page.evaluate("document.querySelector('.filled').contains(document.activeElement)")  # no focus
    page.mouse.move(0, 0)
    assert choices.is_hidden()
    word.focus()
    assert choices.is_visible()
    assert "%" in choices.locator("button").first.inner_text()
    assert is_as_wide_as_the_phone(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = choices.locator("button b").nth(1).inner_text()
    page.keyboard.press("Enter")
    assert word.inner_text() == second
    assert choices.is_hidden()
    page.locator("#masked").fill("Oslo.")
    page.locator("#fill").click()
    page.locator("#read-status", has_text="Skjul minst ett ord").wait_for()


@in_browser
def test_tokens_stand_side_by_side_and_the_language_is_remembered(page: Any) -> None:
    page.locator("#tab-tokens").click()
    page.locator("#cut").fill("Oslo <b>er</b> fin.\n")
    page.locator("#tokens-form button").click()
    # The tab opens on the example's tokens, so the status alone may speak of those.
    page.locator(".cut .text", has_text="<b>").nth(1).wait_for()
    page.locator("#tokens-status", has_text="like mange").wait_for()
    assert page.locator(".cut").count() == 2
    shown = page.locator(".cut .text").first.text_content().replace("↵", "")
    assert shown.replace("·", " ").startswith("Oslo <b>er</b> fin.")
    assert is_as_wide_as_the_phone(page)
    page.locator("#language-en").click()
    assert page.locator(".cut h2").first.inner_text() == "The base model"
    page.reload()
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("#tab-tokens").get_attribute("aria-selected") == "true"


@in_browser
def test_a_failure_is_shown_in_words(page: Any) -> None:
    answer = {"error": {"message": "the server is busy", "type": "", "param": None, "code": ""}}
    page.route("**/v1/page", lambda route: route.fulfill(status=200, json=answer))
    page.route(
        "**/v1/completions",
        lambda route: route.fulfill(status=200, body='data: {"error": {"message": "too long"}}\n\n'),
    )
    page.locator("#go").click()
    page.locator("#failure", has_text="too long").wait_for()
    assert page.locator("#go").is_enabled()


TOKEN = "a-secret-of-the-page"
NO_STORAGE = """
for (const name of ["sessionStorage", "localStorage"]) {
  Object.defineProperty(window, name, { get() { throw new DOMException("not here", "SecurityError"); } });
}
"""


@pytest.fixture(scope="module")
def guarded(taught: TaughtModel, taught_model: LoadedModel) -> Iterator[Running]:
    """A server with a token, which writes fewer tokens than the page asks for at first."""
    settings = ServerSettings(str(taught.folder), name="taught", gguf="none", token=TOKEN, max_tokens=20)
    with running(taught_model, settings, None) as server:
        yield server


@in_browser
@pytest.mark.parametrize("has_storage", [True, False])
def test_the_page_asks_for_the_token_until_it_is_right(
    browser: Any, guarded: Running, has_storage: bool
) -> None:
    context = browser.new_context(locale="nb-NO")
    if not has_storage:
        context.add_init_script(NO_STORAGE)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{guarded.url}/")
    page.locator("#token-form").wait_for()
    for wrong, said in (
        ("hemmelig-漢字", "bare bokstavene a til z"),
        ("hemmelig-å", "bare bokstavene a til z"),
        ("quite-another-one", "ikke godtatt"),
    ):
        page.locator("#token").fill(wrong)
        page.locator("#token").press("Enter")
        page.locator("#failure", has_text=said).wait_for()
        assert page.locator("#token").is_visible()
        assert page.locator("#token").input_value() == ""
    page.locator("#token").fill(f" {TOKEN} ")
    page.locator("#token-form button").click()
    page.locator("#engine", has_text="transformers").wait_for()
    assert page.locator("#token-form").is_hidden()
    assert page.locator("#failure").is_hidden()

    # This server writes fewer tokens than stand in the field at first, and the field is out of sight.
    wanted: list[int] = []
    page.on(
        "request",
        lambda request: (
            wanted.append(request.post_data_json["max_tokens"])
            if request.url.endswith("/v1/completions")
            else None
        ),
    )
    page.locator("#go").click()
    page.locator("#go:enabled").wait_for()
    page.locator("summary").click()
    assert page.locator("#length").input_value() == "20"
    for typed in ("64", "-3", "2.5", ""):
        page.locator("#length").fill(typed)
        page.locator("#go").click()
        page.locator("#go:enabled").wait_for()
        assert page.locator("#write-status").inner_text()
        assert page.locator("#failure").is_hidden()
    assert wanted == [20, 20, 1, 2, 20]
    page.reload()
    page.locator("#engine", has_text="transformers" if has_storage else "").wait_for(state="attached")
    page.locator("#token-form").wait_for(state="hidden" if has_storage else "visible")
    context.close()
    assert faults == []


def test_no_script_of_elsewhere_could_run() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
