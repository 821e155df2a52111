"""Django's MIDDLEWARE entry between Django's own handlers and views, sync and async."""

import asyncio
import gzip
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from csp.constants import NONCE
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, re_path

from capi_middleware import EventRoute, UserData, current_visitor, track
from capi_middleware.django import CAPIMiddleware, get_capi
from capi_middleware.errors import ConfigError
from tests.support.configs import PIXEL_ID, SECRET, TOKEN, make_config
from tests.support.django_project import ENTRY
from tests.support.stores import states

TAG = b'<script type="application/json" data-c>'
PAGE = "<!doctype html><html><head><title>x</title></head><body>é</body></html>"
PARTS = (b"<!doctype html><html><head><title>x</title></head>", b"<body>", b"1</body></html>")
SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"
BROWSER = {"user-agent": "Mozilla/5.0", "accept": "text/html"}
View = Callable[[Any], Any]


class Person:
    """Who logged in, as an authentication middleware would say."""

    email = "jane@example.com"


def name_person(get_response: View) -> View:
    """A synchronous middleware of the site."""

    def middleware(request: Any) -> Any:
        request.user = Person()
        return get_response(request)

    return middleware


class Site:
    """A Django project with one view."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def __call__(
        self,
        view: View,
        *,
        config: Any = None,
        inside: tuple[str, ...] = (),
        method: str = "get",
        path: str = "/",
        **given: Any,
    ) -> Any:
        """The response of `view` with its whole `body` and the `capi` that served it."""

        async def asynchronous_view(request: Any) -> Any:
            return view(request)

        urls = (re_path("", asynchronous_view if self.asynchronous else view),)
        given["headers"] = {**BROWSER, **given.get("headers", {})}
        with override_settings(
            CAPI=config or make_config(), MIDDLEWARE=[ENTRY, *inside], ROOT_URLCONF=urls
        ):
            if self.asynchronous:
                answer = asyncio.run(_asked(method, path, given))
            else:
                answer = getattr(Client(raise_request_exception=False), method)(path, **given)
                answer.body = b"".join(answer) if answer.streaming else answer.content
            answer.capi = get_capi()
            return answer


async def _asked(method: str, path: str, given: dict[str, Any]) -> Any:
    client: Any = AsyncClient(raise_request_exception=False)
    answer = await getattr(client, method)(path, **given)
    if not answer.streaming:
        answer.body = answer.content
    elif answer.is_async:
        answer.body = b"".join([part async for part in answer])
    else:
        answer.body = b"".join(answer)
    return answer


@pytest.fixture(params=["sync", "async"])
def site(request: pytest.FixtureRequest) -> Site:
    return Site(asynchronous=request.param == "async")


def names(answer: Any) -> list[str]:
    """The event names in the store of a response's CAPI."""
    return [state[1] for state in states(answer.capi.store)]


def test_a_page_gets_its_tag_its_cookies_and_its_length(site: Site) -> None:
    answer = site(
        lambda _: HttpResponse(PAGE), inside=("django.middleware.common.CommonMiddleware",)
    )
    assert TAG in answer.body
    assert answer.body.endswith("é</body></html>".encode())
    assert answer["Content-Length"] == str(len(answer.body))
    assert answer.cookies["_fbp"].value.startswith("fb.")
    assert answer.cookies["_fbp"]["samesite"] == "Lax"
    assert names(answer) == ["PageView"]


def test_the_cookies_of_the_site_stay(site: Site) -> None:
    def view(_: Any) -> Any:
        response = HttpResponse(PAGE)
        response.set_cookie("theirs", "1")
        response.set_cookie("_fbp", "fb.1.1700000000000.77")
        return response

    answer = site(view)
    assert answer.cookies["theirs"].value == "1"
    assert answer.cookies["_fbp"].value == "fb.1.1700000000000.77"


def test_an_answer_without_tag_is_the_view_s_own(site: Site) -> None:
    answer = site(lambda _: JsonResponse({"a": 1}))
    assert answer.body == b'{"a": 1}'
    assert dict(answer.items()) == {"Content-Type": "application/json"}
    assert not answer.cookies


def test_a_view_tracks_and_keeps_its_visitor(site: Site) -> None:
    kept = []

    def view(_: Any) -> Any:
        kept.append(current_visitor().dumps())
        track("Purchase", value=5, currency="EUR", user_data=UserData(em="a@b.example"))
        return HttpResponse(PAGE)

    answer = site(view)
    assert names(answer) == ["PageView", "Purchase"]
    assert b"Purchase" in answer.body
    assert kept[0].startswith("v1.")


def test_callables_get_django_s_request_after_its_middleware(site: Site) -> None:
    config = make_config(
        user_data=lambda request: UserData(em=request.user.email),
        consent=lambda request: request.GET.get("agreed") == "yes",
    )
    given: dict[str, Any] = {"config": config, "inside": (f"{__name__}.name_person",)}
    answer = site(lambda _: HttpResponse(PAGE), path="/?agreed=yes", **given)
    (state,) = states(answer.capi.store)
    assert state[4] & 1  # em
    assert names(site(lambda _: HttpResponse(PAGE), **given)) == []


def test_expressions_read_the_request_and_its_user(site: Site) -> None:
    route = EventRoute(
        "POST /",
        "Lead",
        status="2xx",
        custom_data={"value": "{form.price}", "currency": "EUR"},
        user_data={"em": "{state.user.email}"},
    )
    read = []

    def view(request: Any) -> Any:
        read.append(request.POST["price"])
        return HttpResponse(PAGE)

    answer = site(
        view,
        config=make_config(routes=[route], page_view=False),
        inside=(f"{__name__}.name_person",),
        method="post",
        data={"price": "9.5"},
    )
    assert read == ["9.5"]
    assert b"9.5" in answer.body
    (state,) = states(answer.capi.store)
    assert (state[1], state[4] & 1) == ("Lead", 1)


@pytest.mark.parametrize(("app_name", "events"), [("admin", 0), ("shop", 1)])
def test_django_s_admin_is_left_out_wherever_it_is(app_name: str, events: int) -> None:
    pages = include(([re_path("", lambda request: HttpResponse(PAGE))], app_name))
    with override_settings(
        CAPI=make_config(), MIDDLEWARE=[ENTRY], ROOT_URLCONF=(re_path("^back/", pages),)
    ):
        answer = Client().get("/back/orders", headers=BROWSER)
        counts = get_capi().store.tallies(0, 1e12).counts
    left_out = [one.reason for one in counts if one.kind == "suppressed"]
    assert (answer.content.count(TAG), left_out) == (events, ["excluded"] * (1 - events))


@pytest.mark.parametrize(("package", "events"), [("debug_toolbar", 0), ("debug_shop", 1)])
def test_pages_of_tools_are_left_out_wherever_they_are(package: str, events: int) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(PAGE)

    view.__module__ = f"{package}.views"
    with override_settings(
        CAPI=make_config(), MIDDLEWARE=[ENTRY], ROOT_URLCONF=(re_path("^back/", view),)
    ):
        answer = Client().get("/back/panel", headers=BROWSER)
    assert answer.content.count(TAG) == events


@pytest.mark.parametrize(("value", "events"), [("{state.user.email}", 0), ("{state.user.no}", 1)])
def test_staff_of_django_are_known_by_their_user(site: Site, value: str, events: int) -> None:
    answer = site(
        lambda _: HttpResponse(PAGE),
        config=make_config(internal={"value": value}),
        inside=(f"{__name__}.name_person",),
    )
    assert answer.body.count(TAG) == len(states(answer.capi.store)) == events


def test_a_compressor_inside_is_undone_and_done_again(site: Site) -> None:
    page = PAGE.replace("é", "é" * 500)
    answer = site(
        lambda _: HttpResponse(page),
        inside=("django.middleware.gzip.GZipMiddleware",),
        headers={"accept-encoding": "gzip"},
    )
    assert answer["Content-Encoding"] == "gzip"
    assert TAG in gzip.decompress(answer.body)


def test_a_stream_gets_its_tag_piece_by_piece(site: Site) -> None:
    answer = site(lambda _: StreamingHttpResponse(iter(PARTS)))
    assert answer.streaming
    assert TAG in answer.body
    assert answer.cookies["_fbp"].value
    assert names(answer) == ["PageView"]


def test_a_stream_of_an_asynchronous_view_gets_its_tag() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in PARTS:
            yield part

    answer = Site(asynchronous=True)(lambda _: StreamingHttpResponse(parts()))
    assert answer.is_async
    assert answer.body.startswith(PARTS[0][:40])
    assert answer.body.endswith(PARTS[2])
    assert TAG in answer.body
    assert answer.cookies["_fbp"].value
    assert names(answer) == ["PageView"]


def test_a_stream_that_gets_no_tag_is_not_read_ahead() -> None:
    read = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            read.append(number)
            yield b"data: 1"

    async def go() -> None:
        urls = (re_path("", lambda _: StreamingHttpResponse(parts(), "text/event-stream")),)
        with override_settings(CAPI=make_config(), MIDDLEWARE=[ENTRY], ROOT_URLCONF=urls):
            answer: Any = await AsyncClient().get("/", headers=BROWSER)
        assert read == []
        assert [part async for part in answer] == [b"data: 1"] * 3

    asyncio.run(go())


def test_a_stream_that_nobody_reads_still_ends() -> None:
    ended = []

    def parts() -> Iterator[bytes]:
        try:
            yield from PARTS
        finally:
            ended.append(True)

    urls = (re_path("", lambda _: StreamingHttpResponse(parts())),)
    with override_settings(CAPI=make_config(), MIDDLEWARE=[ENTRY], ROOT_URLCONF=urls):
        answer: Any = Client().get("/", headers=BROWSER)
        answer.close()
        assert [state[1] for state in states(get_capi().store)] == ["PageView"]
    assert ended == [True]


def test_a_file_stays_as_it_is(site: Site) -> None:
    answer = site(lambda _: FileResponse(io.BytesIO(PAGE.encode()), content_type="text/html"))
    assert answer.body == PAGE.encode()


def test_an_event_of_a_redirect_rides_to_the_next_page(site: Site) -> None:
    def view(_: Any) -> Any:
        track("Lead")
        return HttpResponse(status=303, headers={"Location": "/thanks"})

    answer = site(view)
    cookie = answer.cookies["capi_next"]
    assert (cookie["httponly"], cookie["path"]) == (True, "/")
    issuer = answer.capi.issuer
    fbp = answer.cookies["_fbp"].value
    (event,), *_ = issuer.carrier.unpack(cookie.coded_value, now=issuer.clock(), owner=fbp)
    assert event.event_name == "Lead"


def test_the_report_lets_a_browser_log_in(site: Site) -> None:
    sent: dict[str, Any] = {
        "data": "token=the-report-token",
        "content_type": "application/x-www-form-urlencoded",
    }
    answer = site(lambda _: None, path="/_capi/parity", method="post", **sent)
    assert (answer.status_code, answer["Location"]) == (303, "/_capi/parity")
    assert answer.cookies["capi_report"]["samesite"] == "strict"
    cookie = f"capi_report={answer.cookies['capi_report'].coded_value}"
    if not site.asynchronous:  # Django's AsyncClient sends cookies of its own alone
        answer = site(lambda _: None, path="/_capi/parity", headers={"cookie": cookie})
        assert answer.status_code == 200


def test_a_page_from_a_cache_asks_with_the_visitor_s_session() -> None:
    def view(request: Any) -> Any:
        request.session["email"] = "jane@example.com"
        return HttpResponse("you are in")

    site = Site(asynchronous=False)
    given: dict[str, Any] = {
        "config": make_config(user_data=lambda request: UserData(em=request.session["email"])),
        "inside": ("django.contrib.sessions.middleware.SessionMiddleware",),
    }
    with override_settings(SESSION_ENGINE=SIGNED_COOKIES):
        page = site(view, **given)
        session, key = page.cookies["sessionid"].coded_value, page.capi.issuer.new_key()
        answer = site(
            view,
            path="/_capi/t",
            method="post",
            data=json.dumps({"u": "http://testserver/cached", "r": "", "k": key}),
            content_type="text/plain",
            headers={"cookie": f"sessionid={session}", "host": "testserver"},
            **given,
        )
    assert answer.status_code == 200
    (state,) = states(answer.capi.store)
    assert (state[1], state[4] & 1) == ("PageView", 1)


def test_a_response_ends_after_its_conversion_is_on_disk(site: Site, tmp_path: Path) -> None:
    store = tmp_path / "capi.db"

    def view(_: Any) -> Any:
        track("Purchase", value=5, currency="EUR")
        return JsonResponse({})

    answer = site(view, config=make_config(store=f"sqlite:///{store}"))
    db = sqlite3.connect(store)
    assert db.execute("SELECT event_name FROM events").fetchall() == [("Purchase",)]
    db.close()
    answer.capi.close()


def test_headers_that_cannot_be_set_are_survived(
    site: Site, monkeypatch: pytest.MonkeyPatch, swallowed: list[BaseException]
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("of ours")

    monkeypatch.setattr("capi_middleware.django._change", fail)
    answer = site(lambda _: HttpResponse(PAGE))
    assert answer.status_code == 200
    assert [str(error) for error in swallowed] == ["of ours"]
    swallowed.clear()


def test_a_request_that_came_through_no_server_passes(swallowed: list[BaseException]) -> None:
    with override_settings(CAPI=make_config(), MIDDLEWARE=[ENTRY]):
        assert CAPIMiddleware(lambda _: "theirs")(HttpRequest()) == "theirs"
    swallowed.clear()


def test_a_failing_view_is_no_event(site: Site) -> None:
    def view(_: Any) -> Any:
        track("Lead")
        raise RuntimeError("of the site")

    answer = site(view)
    assert answer.status_code == 500
    assert names(answer) == []


def test_our_endpoints_answer_before_anything_of_the_site(site: Site) -> None:
    def view(_: Any) -> Any:
        raise AssertionError("asked for our endpoint")

    script = site(view, path="/_capi/s.js", inside=("django.middleware.csrf.CsrfViewMiddleware",))
    assert (script.status_code, script["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    told = f'{{"e": [["forged", "Lead", "{PIXEL_ID}", "sent"]]}}'
    for body, status in ((told, 204), ("x", 400), ("x" * 70_000, 413)):
        sent: dict[str, Any] = {"data": body, "content_type": "text/plain"}
        assert site(view, path="/_capi/b", method="post", **sent).status_code == status


def test_a_cache_outside_of_the_entry_is_named(caplog: pytest.LogCaptureFixture) -> None:
    order = ["django.middleware.cache.UpdateCacheMiddleware", ENTRY]
    for middleware, expected in ((order, 1), (order[::-1], 0)):
        with override_settings(CAPI=make_config(), MIDDLEWARE=middleware):
            CAPIMiddleware(lambda request: None)
        assert caplog.text.count("event_ids of one visitor") == expected
        caplog.clear()


def test_settings_are_plain_data() -> None:
    given = {
        "secret_key": SECRET,
        "pixels": [{"id": PIXEL_ID, "access_token": TOKEN}],
        "routes": [{"match": "GET /", "event_name": "ViewContent"}],
        "store": "memory:",
    }
    with override_settings(CAPI=given):
        assert get_capi().config.routes[0].event_name == "ViewContent"
        assert get_capi() is get_capi()


def test_missing_settings_are_named() -> None:
    with (
        override_settings(CAPI=None),
        pytest.raises(ConfigError, match=r"found nothing.*settings.CAPI"),
    ):
        get_capi()


STRICT = {"DIRECTIVES": {"script-src": ["'strict-dynamic'", NONCE]}}
CSP = "csp.middleware.CSPMiddleware"


def test_the_nonce_that_django_csp_makes_only_when_it_is_asked_for_is_in_the_tag(
    site: Site,
) -> None:
    with override_settings(CONTENT_SECURITY_POLICY=STRICT):
        answer = site(lambda request: HttpResponse(PAGE), inside=(CSP,))
    nonce = answer["Content-Security-Policy"].split("'nonce-")[1].split("'")[0]
    assert f' async nonce="{nonce}"></script>'.encode() in answer.body


def test_what_a_script_fetches_gets_no_nonce_in_its_policy(site: Site) -> None:
    headers = {"accept": "*/*", "sec-fetch-dest": "empty"}
    with override_settings(CONTENT_SECURITY_POLICY=STRICT):
        answer = site(lambda request: JsonResponse({}), inside=(CSP,), headers=headers)
    assert "nonce" not in answer["Content-Security-Policy"]
