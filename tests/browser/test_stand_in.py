"""The stand-in for Meta's library does what the real one was seen to do: pixel-facts.md."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from capi_middleware.testing import FakeMeta
from capi_middleware.testing.received import BrowserHit, Received
from tests.browser.site import own_snippet
from tests.support.browsers import AGENT
from tests.support.servers import serve

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
HOST = "www.shop.localhost"
INIT = "fbq('init', '1');"
WORD = (
    "window.fired = [];"
    "const wait = setInterval(() => { if (!fbq.callMethod) return; clearInterval(wait);"
    " fbq.getFbeventsModules('SignalsFBEventsFiredEvent').listen((way, payload) =>"
    " fired.push([way, payload.get('ev')])) }, 1);"
)


class Library:
    """Pages with a snippet of their own and the stand-in; nothing of ours."""

    def __init__(self) -> None:
        self.meta = FakeMeta()
        self.page: Page
        self.origin = self._calls = ""
        self.app = Starlette(routes=[Route("/{path:path}", self._answer)])

    async def _answer(self, request: Asked) -> Response:
        snippet = own_snippet(self._calls, self.meta.url)
        return HTMLResponse(f"<title>t</title><body><button>Buy</button>{snippet}")

    def open(self, calls: str, path: str = "/page") -> None:
        self._calls = calls
        self.page.goto(self.origin + path)

    def settled(self) -> list[BrowserHit]:
        """What has arrived when an event that is called last has arrived, in order of its call."""
        done = sum(hit.ev == "Done" for hit in self.hits)
        self.page.evaluate("fbq('track', 'Done')")
        self.wait(lambda: sum(hit.ev == "Done" for hit in self.hits) > done)
        last = max(int(hit.params["ec"]) for hit in self.hits if hit.ev == "Done")
        self.wait(lambda: {int(hit.params["ec"]) for hit in self.hits} >= set(range(last + 1)))
        return [hit for hit in self.hits if hit.ev != "Done"]

    @property
    def hits(self) -> list[BrowserHit]:
        return sorted(self.meta.received.browser, key=lambda hit: int(hit.params["ec"]))

    def wait(self, condition: Callable[[], object]) -> None:
        for _ in range(2400):
            if condition():
                return
            self.page.wait_for_timeout(25)
        raise AssertionError("did not come")

    def loaded(self) -> None:
        self.page.wait_for_function("!!(window.fbq && fbq.callMethod)", timeout=60_000)

    def state(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture(scope="module")
def running() -> Iterator[Library]:
    library = Library()
    with library.meta.serve(), serve(library.app) as url:
        library.origin = f"http://{HOST}:{urlsplit(url).port}"
        yield library


@pytest.fixture
def library(
    browser: Browser, running: Library, request: pytest.FixtureRequest
) -> Iterator[Library]:
    running.meta.received = Received()
    running.meta.clear_faults()
    running.meta.pixel_plugins = ("cookie",)
    context = browser.new_context(user_agent=getattr(request, "param", AGENT))
    running.page = context.new_page()
    running.page.set_default_timeout(60_000)
    yield running
    context.close()


def names(hits: list[BrowserHit]) -> list[str]:
    return [f"{hit.ev} {hit.eid}" for hit in hits]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_page_has_one_page_view_of_track_and_any_number_of_track_single(
    library: Library,
) -> None:
    library.open(
        INIT + "fbq('track', 'PageView', {}, {eventID: 'a'});"
        "fbq('track', 'PageView', {}, {eventID: 'b'});"
        "fbq('trackCustom', 'PageView', {}, {eventID: 'c'});"
        "fbq('trackSingle', '1', 'PageView', {}, {eventID: 'd'});"
        "fbq('trackSingle', '1', 'PageView', {}, {eventID: 'e'});"
    )
    assert names(library.settled()) == ["PageView a", "PageView d", "PageView e"]


def test_a_page_view_of_track_single_does_not_keep_out_one_of_track(library: Library) -> None:
    library.open(INIT + "fbq('trackSingle', '1', 'PageView'); fbq('track', 'PageView');")
    assert [hit.params.get("tm") for hit in library.settled()] == ["1", None]


def test_other_events_are_sent_as_often_as_they_are_called(library: Library) -> None:
    library.open(INIT + "fbq('track', 'Lead', {}, {eventID: 'x'});" * 2)
    assert names(library.settled()) == ["Lead x", "Lead x"]


def test_track_goes_to_each_pixel_and_an_init_counts_once(library: Library) -> None:
    library.open(INIT + INIT + "fbq('init', '2'); fbq('track', 'Lead', {}, {eventID: 'x'});")
    assert sorted(hit.id for hit in library.settled()) == ["1", "2"]
    assert library.meta.received.configs == ["1", "2"]


def test_a_picture_is_asked_for_with_the_event(library: Library) -> None:
    library.open(
        INIT + "fbq('track', 'Purchase',"
        " {value: 12.34, currency: 'EUR', ids: ['a'], none: null, no: undefined},"
        " {eventID: 'a.b-c_d~e'})", path="/page?q=1",
    )  # fmt: skip
    (hit,) = library.settled()
    order = [re.sub(r"\[.*", "", key) for key in hit.params]
    assert [*dict.fromkeys(order)] == [
        "id", "ev", "dl", "rl", "if", "ts", "cd", "sw", "sh", "v", "r", "ec", "o", "fbp", "ler",
        "cdl", "it", "coo", "eid", "expv2", "rqm",
    ]  # fmt: skip
    assert (hit.method, hit.params["rqm"], hit.eid) == ("GET", "GET", "a.b-c_d~e")
    assert (hit.dl, hit.params["if"]) == (f"{library.origin}/page?q=1", "false")
    assert hit.cd == {"value": "12.34", "currency": "EUR", "ids": '["a"]'}


EIDS = {
    "{eventID: 12345}": "12345", "{eventID: 0}": "0", "{eventID: ''}": "",
    "{eventID: null}": None, "{}": None, "{event_id: 'x'}": "x",
    "{eventID: 'a', event_id: 'b'}": "a", "{eventID: {eventID: 'y'}}": "y",
    "{eventID: 'ü & %41+😀'}": "ü & %41+😀",
}  # fmt: skip


def test_an_event_id_travels_as_it_is(library: Library) -> None:
    library.open(INIT + "".join(f"fbq('track', 'Lead', {{}}, {given});" for given in EIDS))
    assert [hit.eid for hit in library.settled()] == list(EIDS.values())


LONG = INIT + "fbq('track', 'Lead', {text: 'x'.repeat(2048)}, {eventID: 'x'})"
FIVE = (
    "fbq('init', '1', {em: ' Jane.Doe@Example.COM ', ph: '+1 (555) 010-9999', fn: 'Jane',"
    " ln: 'Doe', external_id: 'USER-42'}); fbq('track', 'Lead', {}, {eventID: 'x'})"
)


@pytest.mark.parametrize("calls", [LONG, FIVE], ids=["long", "five keys"])
@pytest.mark.parametrize(
    ("library", "way"), [(AGENT, "formPOST"), (FIREFOX, "SB")], indirect=["library"],
    ids=["Chrome", "another"],
)  # fmt: skip
def test_what_is_long_is_posted(library: Library, calls: str, way: str) -> None:
    library.open(WORD + calls)
    (hit,) = library.settled()
    assert (hit.method, hit.params["rqm"], hit.eid) == ("POST", way, "x")
    assert library.state("fired[0]") == [{"SB": "BEACON"}.get(way, "POST"), "Lead"]


def test_keys_are_cleaned_and_hashed_with_masks_beside_them(library: Library) -> None:
    library.open(FIVE)
    (hit,) = library.settled()
    keys = {key: one for key, one in hit.params.items() if key.startswith("ud")}
    assert keys == {
        "ud[em]": sha256("jane.doe@example.com"), "ud[ph]": sha256("15550109999"),
        "ud[fn]": sha256("jane"), "ud[ln]": sha256("doe"), "ud[external_id]": sha256("user-42"),
    }  # fmt: skip
    assert hit.params["cud[em]"] == "^***.^**@^******.^^^"
    assert hit.params["aud[em]"] == hit.params["ud[em]"]


def test_a_key_is_cleaned_by_its_kind(library: Library) -> None:
    library.open(
        "fbq('init', '1', {em: 'notanemail', ct: 'New York', zp: '10001-1234', ge: 'Female',"
        f" fn: ' Noëlle ', ln: '{'a1' * 32}'}}); fbq('track', 'Lead')"
    )
    (hit,) = library.settled()
    cleaned = {"em": "notanemail@gmail.com", "ct": "newyork", "zp": "10001", "ge": "female",
               "fn": "noëlle"}  # fmt: skip
    for key, text in cleaned.items():
        assert hit.params[f"ud[{key}]"] == sha256(text)
    assert hit.params["ud[ln]"] == "a1" * 32


def test_the_snippet_is_taken_over_and_its_queue_sent_in_order(library: Library) -> None:
    library.open(
        "window.mine = fbq;" + INIT + "fbq('track', 'A'); _fbq('track', 'B');"
        "fbq.push('track', 'C'); mine('track', 'D');"
    )
    assert [hit.ev for hit in library.settled()] == ["A", "B", "C", "D"]
    assert library.state("[fbq === mine, _fbq === mine, fbq.push === mine]") == [True] * 3
    assert library.state("typeof fbq.callMethod") == "function"
    assert re.fullmatch(r"2\.9\.\d+", library.state("fbq.version"))
    assert library.state("fbq.queue.length") == 0
    library.state("fbq.callMethod('track', 'E')")
    assert [hit.ev for hit in library.settled()][-1] == "E"


@pytest.mark.parametrize("status", [404, 200], ids=["missing", "empty"])
def test_without_a_config_no_event_is_sent(library: Library, status: int) -> None:
    library.meta.fail_next(status, "", times=None, endpoint="config")
    library.open(INIT + "fbq('track', 'Lead')")
    library.loaded()
    library.wait(lambda: library.meta.received.configs)
    assert library.state("[fbq.queue.length, Object.keys(fbq.instance.locks)]") == [1, ["config:1"]]
    assert library.hits == []


def test_a_revoked_consent_holds_all_until_it_is_granted(library: Library) -> None:
    library.open("fbq('consent', 'revoke');" + INIT + "fbq('track', 'Lead')")
    library.loaded()
    assert library.state("[fbq.queue.length, Object.keys(fbq.instance.locks)]") == [2, ["consent"]]
    assert (library.hits, library.meta.received.configs) == ([], [])
    library.state("fbq('consent', 'grant')")
    assert [hit.ev for hit in library.settled()] == ["Lead"]


def test_limited_data_use_goes_with_each_event(library: Library) -> None:
    library.open("fbq('dataProcessingOptions', ['LDU'], 0, 0);" + INIT + "fbq('track', 'Lead')")
    (hit,) = library.settled()
    assert [hit.params[key] for key in ("dpo", "dpoco", "dpost")] == ["LDU", "0", "0"]


@pytest.mark.parametrize(("held", "views"), [("false", 3), ("true", 1)], ids=["on", "off"])
def test_a_new_address_is_a_page_view_without_an_id_unless_that_is_off(
    library: Library, held: str, views: int
) -> None:
    library.open(f"fbq.disablePushState = {held};" + INIT + "fbq('track', 'PageView')")
    library.settled()
    library.state("history.pushState({}, '', '/page/2'), history.replaceState({}, '', '/page/2')")
    library.state("history.replaceState({}, '', '/page/3')")
    hits = library.settled()
    assert names(hits) == ["PageView None"] * views
    assert hits[-1].dl == library.origin + ("/page/3" if views > 1 else "/page")


def test_a_page_from_the_browsers_memory_is_viewed_again(library: Library) -> None:
    library.open("fbq.disablePushState = true;" + INIT)
    library.settled()
    library.state("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    assert names(library.settled()) == ["PageView None"]


def test_its_cookies_are_of_the_whole_domain_and_keep_their_values(library: Library) -> None:
    library.open(INIT + "fbq('track', 'Lead')", path="/page?fbclid=Q.1")
    library.settled()
    before = {one["name"]: one for one in library.page.context.cookies()}
    assert re.fullmatch(r"fb\.1\.\d{13}\.\d{1,18}", before["_fbp"]["value"])
    assert re.fullmatch(r"fb\.1\.\d{13}\.Q__DOT__1", before["_fbc"]["value"])
    assert {one["domain"] for one in before.values()} == {".shop.localhost"}
    library.meta.received.browser.clear()
    library.open(INIT + "fbq('track', 'Lead')", path="/page?again")
    (hit,) = library.settled()
    assert [hit.params[key[1:]] for key in ("_fbc", "_fbp")] == [
        before[key]["value"] for key in ("_fbc", "_fbp")
    ]


def test_without_its_plugin_there_are_no_cookies(library: Library) -> None:
    library.meta.pixel_plugins = ()
    library.open(INIT + "fbq('track', 'Lead')")
    assert "fbp" not in library.settled()[0].params
    assert library.page.context.cookies() == []


@pytest.mark.parametrize("library", [f"{AGENT} Googlebot/2.1"], indirect=True)
def test_a_bot_sends_nothing_and_nothing_says_so(library: Library) -> None:
    library.meta.pixel_plugins = ("cookie", "botblocking")
    library.open(INIT + "fbq('track', 'Lead')")
    library.page.wait_for_function("!!(window.fbq.instance?.pixelsByID[1]?.eventCount)")
    assert library.state("[fbq.queue.length, Object.keys(fbq.instance.locks)]") == [0, []]
    assert library.hits == []


@pytest.mark.parametrize(
    ("library", "way"), [(AGENT, "GET"), (FIREFOX, "SB")], indirect=["library"],
    ids=["Chrome", "another"],
)  # fmt: skip
def test_a_button_is_an_automatic_event(library: Library, way: str) -> None:
    library.meta.pixel_plugins = ("inferredevents",)
    library.open(INIT)
    library.settled()
    library.page.click("button")
    library.wait(lambda: len(library.hits) == 2)
    hit = library.hits[-1]
    assert (hit.ev, hit.eid, hit.params["rqm"]) == ("SubscribedButtonClick", None, way)
    assert (hit.params["tm"], hit.params["es"]) == ("3", "automatic")


def test_automatic_events_can_be_off(library: Library) -> None:
    library.meta.pixel_plugins = ("inferredevents",)
    library.open("fbq('set', 'autoConfig', false, '1');" + INIT)
    library.loaded()
    library.page.click("button")
    assert library.settled() == []


def test_open_bridge_gives_an_id_to_what_has_none_and_sends_a_copy_elsewhere(
    library: Library,
) -> None:
    library.meta.pixel_plugins = ("openbridge",)
    asked: list[Request] = []

    def note(request: Request) -> None:
        asked.append(request)

    library.page.on("request", note)
    library.open(INIT + "fbq('track', 'Lead'); fbq('track', 'Lead', {}, {eventID: 'x'})")
    bare, named = library.settled()
    assert re.fullmatch(r"ob3_plugin-set_[0-9a-f]{64}", bare.eid or "")
    assert named.eid == "x"
    copies = [one.post_data or "" for one in asked if "/events?" in one.url]
    assert [json.loads(copy)["eid"] for copy in copies[:2]] == [bare.eid, "x"]
