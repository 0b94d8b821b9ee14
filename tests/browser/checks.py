"""What must be seen of the page. In: a page that has just been opened, and a camera. Out: nothing, or an assertion that fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.browser.service import BUSY

Camera = Callable[[str], object]
Check = Callable[[Page, Camera], None]

SEINE = "Which river flows through Paris, the capital of France?"
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "has_touch": True}


def opened_with(**options: Any) -> Callable[[Check], Check]:
    """Say how the browser of a check is opened."""

    def mark(check: Check) -> Check:
        check.options = options  # type: ignore[attr-defined] # read back below
        return check

    return mark


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox").fill(question)
    page.keyboard.press("Enter")


def status(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#status")).to_have_text(text)


def answers(page: Page, question: str) -> None:
    """Ask, and wait for the end."""
    ask(page, question)
    status(page, re.compile("^(Done|完成)"))


def refuse(route: Route, status_code: int, message: str, **headers: str) -> None:
    body = {"error": {"message": message, "type": "x", "param": None, "code": None}}
    route.fulfill(status=status_code, headers={"x-request-id": "5d0c7a", **headers}, body=json.dumps(body))


def is_narrow(page: Page) -> None:
    """Hold that nothing sticks out to the side."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def check_empty(page: Page, shoot: Camera) -> None:
    """An empty page says what it is for, that the service is ready, and has the keyboard in the question."""
    expect(page.locator("#service")).to_have_text("Ready")
    expect(page.get_by_role("heading", name="Ask the corpus")).to_be_visible()
    expect(page.get_by_role("textbox")).to_be_focused()
    shoot("empty")


def check_stream(page: Page, shoot: Camera) -> None:
    """An answer is seen while it is written; the status says where it stands; sources and times come with its end."""
    ask(page, SEINE)
    status(page, "Writing")
    answer = page.locator(".answer")
    first = answer.inner_text()
    shoot("stream")
    page.wait_for_function("text => document.querySelector('.answer').innerText.length > text.length", arg=first)
    assert answer.inner_text().startswith(first.rstrip())
    status(page, "Done, 3 sources")
    expect(page.locator(".source")).to_have_count(3)
    page.locator(".details summary").click()
    expect(page.locator(".details")).to_contain_text("To the first word")
    expect(page.locator(".details")).to_contain_text("000001-test")
    assert page.locator(".turn [aria-live], .turn[aria-live]").count() == 0
    shoot("done")


def check_escape(page: Page, shoot: Camera) -> None:
    """Escape stops the answer; what was written stays, and the next question can be asked."""
    ask(page, SEINE)
    status(page, "Writing")
    page.keyboard.press("Escape")
    status(page, "Stopped")
    written = page.locator(".answer").inner_text()
    page.wait_for_timeout(400)
    assert page.locator(".answer").inner_text() == written != ""
    expect(page.locator(".turn")).to_contain_text("Stopped before the end.")
    expect(page.get_by_role("textbox")).to_be_focused()
    shoot("stopped")
    answers(page, SEINE)


def check_passage(page: Page, shoot: Camera) -> None:
    """A source opens its passage by keyboard; Escape closes it and the keyboard is where it was."""
    answers(page, SEINE)
    source = page.locator(".source").nth(1)
    source.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("Source 2 of 3")
    expect(dialog).to_contain_text("Share in the answer")
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    shoot("passage")
    dialog.get_by_role("button", name="Next").click()
    expect(dialog).to_contain_text("Source 3 of 3")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(source).to_be_focused()


def check_markers(page: Page, shoot: Camera) -> None:
    """Numbers in brackets that cite a source open it; others are text."""
    chunks = [
        {"choices": [{"delta": {"content": "The Seine [1] flows [2] there [9]."}, "finish_reason": None}]},
        {
            "choices": [{"delta": {}, "finish_reason": "stop"}],
            "citations": [
                {"number": n, "id": f"p{n}", "title": f"T{n}", "url": "", "text": "x", "score": 1.0, "weight": 0.5}
                for n in (1, 2)
            ],
        },
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    answers(page, SEINE)
    expect(page.locator(".answer")).to_have_text("The Seine 1 flows 2 there [9].")
    shoot("markers")
    page.get_by_role("button", name="Open source 2", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Source 2 of 2")


def check_error(page: Page, shoot: Camera) -> None:
    """An error shows the service's message and the request's id, and the question can be asked again."""
    page.route("**/v1/chat/completions", lambda route: refuse(route, 503, "the generator is stopping"))
    ask(page, SEINE)
    status(page, "No answer: the generator is stopping")
    expect(page.locator(".error")).to_contain_text("5d0c7a")
    shoot("error")
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    status(page, "Done, 3 sources")
    expect(page.locator(".turn")).to_have_count(1)


def check_busy(page: Page, shoot: Camera) -> None:
    """A busy service is named with the time to wait, which is counted down before another try."""
    ask(page, BUSY)
    expect(page.locator(".error")).to_contain_text("The service is busy. 64 requests are waiting already")
    expect(page.get_by_role("button", name="Try again")).to_be_enabled()
    page.route("**/v1/chat/completions", lambda route: refuse(route, 429, "too much", **{"retry-after": "2"}))
    page.get_by_role("button", name="Try again").click()
    button = page.get_by_role("button", name=re.compile(r"Try again in \d s"))
    expect(button).to_be_disabled()
    shoot("busy")
    expect(page.get_by_role("button", name="Try again", exact=True)).to_be_enabled()


def check_cut_off(page: Page, shoot: Camera) -> None:
    """An error in the middle of a stream keeps what was written."""
    events = (
        'data: {"choices": [{"delta": {"content": "The Sei"}}]}\n\ndata: {"error": {"message": "a process ended"}}\n\n'
    )
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=events))
    ask(page, SEINE)
    status(page, "No answer: a process ended")
    expect(page.locator(".answer")).to_have_text("The Sei")
    page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=events[:62])
    )
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".error")).to_contain_text("The connection ended before the answer did.")


def check_key(page: Page, shoot: Camera) -> None:
    """A service that asks for a key says so; the key is sent, and kept for the tab alone."""
    sent: list[str | None] = []

    def guard(route: Route) -> None:
        sent.append(route.request.headers.get("authorization"))
        if sent[-1] == "Bearer sk-ragray-1":
            route.continue_()
        else:
            refuse(route, 401, "no key")

    page.route("**/v1/**", guard)
    page.reload()
    ask(page, SEINE)
    expect(page.locator(".error")).to_contain_text("The service asks for a key.")
    shoot("key")
    page.get_by_role("button", name="Enter a key").click()
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.type("sk-ragray-1")
    shoot("settings")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Try again").click()
    status(page, "Done, 3 sources")
    assert "sk-ragray-1" not in page.evaluate("JSON.stringify(localStorage)")


def check_settings(page: Page, shoot: Camera) -> None:
    """The settings change what is asked for: passages only, closed book, the number of passages, the conversation."""
    bodies: list[Any] = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if request.method == "POST" else None)

    def choose(label: str, k: str = "") -> None:
        page.get_by_role("button", name="Settings").click()
        page.get_by_label(label, exact=False).check()
        page.get_by_label("Passages per question").fill(k)
        page.get_by_role("button", name="Close").click()

    choose("Passages only", "5")
    answers(page, SEINE)
    expect(page.locator(".source")).to_have_count(5)
    shoot("search")
    assert bodies[-1] == {"query": SEINE, "k": 5}
    choose("closed book")
    answers(page, SEINE)
    assert bodies[-1]["retrieval"] == {"closed_book": True}
    expect(page.locator(".turn").last).to_contain_text("I do not know.")
    choose("An answer from passages", "2")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Send the earlier conversation").check()
    page.keyboard.press("Escape")
    answers(page, SEINE)
    assert bodies[-1]["retrieval"] == {"k": 2}
    assert [message["role"] for message in bodies[-1]["messages"]] == ["user", "assistant", "user"]
    expect(page.locator(".turn").last.locator(".source")).to_have_count(2)


def check_history(page: Page, shoot: Camera) -> None:
    """What was said is there after a reload, until it is deleted."""
    answers(page, SEINE)
    page.reload()
    expect(page.get_by_role("heading", name=SEINE)).to_be_visible()
    page.locator(".source").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Delete the history").click()
    status(page, "The history is deleted")
    page.reload()
    expect(page.locator(".turn")).to_have_count(0)


def check_markup(page: Page, shoot: Camera) -> None:
    """Markup in a question, a title, a passage or an address stays text."""
    page.on("dialog", lambda dialog: (_ for _ in ()).throw(AssertionError("a script ran")))
    answers(page, "<img src=x onerror=alert(1)> stays markup?")
    assert page.locator(".turn img, .turn b").count() == 0
    page.locator(".source", has_text="Markup").click()
    expect(page.get_by_role("dialog")).to_contain_text("<b>Markup</b>")
    assert page.locator("dialog a").count() == 0
    shoot("markup")


@opened_with(locale="zh-CN")
def check_chinese(page: Page, shoot: Camera) -> None:
    """A Chinese browser gets a Chinese page; the switch turns it into English, what was said included."""
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    answers(page, "紫禁城是哪一年落成的？")
    status(page, "完成，3 个来源")
    expect(page.locator(".turn h2")).to_have_attribute("lang", "zh")
    shoot("chinese")
    page.get_by_role("button", name="English").click()
    status(page, "Done, 3 sources")
    expect(page.locator(".sources h3")).to_have_text("Sources")


def check_right_to_left(page: Page, shoot: Camera) -> None:
    """An Arabic question and its answer run from right to left on an English page."""
    answers(page, "ما هو أطول أنهار أفريقيا؟")
    assert page.locator(".turn h2").evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert page.locator(".answer").evaluate("node => getComputedStyle(node).direction") == "rtl"
    shoot("arabic")
    page.locator(".source").first.click()
    expect(page.get_by_role("link", name="https://example.org/nile")).to_be_visible()


@opened_with(**PHONE)
def check_phone(page: Page, shoot: Camera) -> None:
    """On a telephone nothing sticks out, and every target is large enough for a finger."""
    is_narrow(page)
    shoot("phone-empty")
    answers(page, SEINE)
    is_narrow(page)
    targets = page.locator("button:visible, nav a:visible").all()
    assert min(target.bounding_box()["height"] for target in targets) >= 36
    shoot("phone")
    page.locator(".source").first.tap()
    is_narrow(page)
    shoot("phone-passage")
    page.get_by_role("button", name="Close").tap()
    page.get_by_role("button", name="Settings").tap()
    is_narrow(page)
    shoot("phone-settings")


@opened_with(color_scheme="dark")
def check_dark(page: Page, shoot: Camera) -> None:
    """In the dark the page is dark."""
    answers(page, SEINE)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", ground)) < 60
    shoot("dark")
    page.locator(".source").first.click()
    shoot("dark-passage")


@opened_with(reduced_motion="reduce")
def check_motion(page: Page, shoot: Camera) -> None:
    """Who wants no motion gets none."""
    ask(page, SEINE)
    expect(page.locator(".caret")).to_have_css("animation-name", "none")


def check_loading(page: Page, shoot: Camera) -> None:
    """A service that loads or cannot be reached says so, and is asked again until it is ready."""
    reason = "the generator loads " + 30 * "and loads "
    page.route("**/readyz", lambda route: refuse(route, 503, reason))
    page.reload()
    expect(page.locator("#service")).to_have_text(f"Loading: {reason}")
    expect(page.locator("#empty")).to_contain_text("the generator loads")
    is_narrow(page)
    shoot("loading")
    page.unroute("**/readyz")
    page.route("**/readyz", lambda route: route.abort())
    expect(page.locator("#service")).to_have_text("Not reachable")
    page.unroute("**/readyz")
    expect(page.locator("#service")).to_have_text("Ready")


def check_no_generator(page: Page, shoot: Camera) -> None:
    """A service without a generator looks passages up, and says that it does no more."""
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": []}))
    page.reload()
    expect(page.locator("#empty")).to_contain_text("This service looks passages up.")
    answers(page, SEINE)
    expect(page.locator(".answer")).to_have_count(0)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("An answer from passages")).to_be_disabled()


def check_docs(page: Page, shoot: Camera) -> None:
    """The documentation names every route with its fields and a command."""
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="Answer a question")).to_be_visible()
    expect(page.locator("#contents a")).not_to_have_count(0)
    expect(page.locator("body")).to_contain_text("curl http://127.0.0.1")
    shoot("docs")
    page.locator("#contents a", has_text="/v1/chat/completions").click()
    shoot("docs-chat")
    page.set_viewport_size({"width": 360, "height": 740})
    is_narrow(page)
    shoot("docs-phone")
