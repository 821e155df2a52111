"""Whatever a visitor sends, the work grows no faster than its length."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, UserData, track
from capi_middleware.capture.banners import READY_RULES
from capi_middleware.capture.identity import identify
from capi_middleware.errors import CapiError
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.visitor import Visitor
from capi_middleware.report.window import parse_window
from tests.support.configs import make_config
from tests.support.exchanges import scope_for

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
#: Six times the input may take this many times as long: quadratic work takes 36 times.
MOST = 8.0
#: Less than this, in seconds, is noise: quadratic work on 8 KB takes several times as long.
NOISE = 0.05

#: What is repeated to the length that is asked for, and what comes after it.
PATTERNS = {
    "letters": ("a", ""),
    "letters, at": ("a", "@"),
    "at": ("@", ""),
    "letter and at": ("a@", ""),
    "dotted": ("a.", "@a."),
    "percent": ("%", ""),
    "percent twice": ("%25", "40"),
    "percent at": ("a%40", ""),
    "token": ("eyJa", ""),
    "token, dot": ("eyJa.", ""),
    "plus": ("+1", ""),
    "digits": ("1", ""),
    "digits and blanks": ("0 ", ""),
    "digits and dashes": ("4-", "x"),
    "account": ("DE89 3704 ", "x"),
    "blanks": (" ", "x"),
    "tabs": ("\t", "x"),
    "braces": ("{", ""),
    "brackets": ("[", "]"),
    "quotes": ('"', ""),
    "backslashes": ("\\", ""),
    "quoted": ('\\"', ""),
    "semicolons": (";", ""),
    "pairs": ("a=b;", ""),
    "questions": ("?a=", ""),
    "ampersands": ("&a", ""),
    "slashes": ("/a", ""),
    "commas": ("a,", ""),
    "titles": ("republicof", ""),
    "parts": ("CA - ", ""),
    "colons": ("a:", ""),
    "dashes": ("-a", ""),
    "cases": ("aA1", ""),
    "fbp": ("_fbp=fb.1.", ""),
    "names": ("_fbp", "="),
    "accents": ("é", ""),
    "wide": ("漢", ""),
    "forwarded": ("for=1,", ""),
    "fbclid": ("fbclid=a&", ""),
    "dots": (".", "x"),
    "nested": ('{"a":', ""),
    "nested lists": ('{"a":[', "]"),
    "lone surrogates": ("\\ud800", ""),
    "lines": ("\r\n", "x"),
    "part marks": ("\r\n--x", ""),
    "dashes and colons": ("a-", ":1"),
    "encoded twice": ("%2540a.", ""),
    "parameters": ("; a=", ""),
}
LEAF = {"em": "{form.name}", "ph": "{query.x}", "fn": "{json.name}", "external_id": "{cookie.c}"}
ROUTES = [
    EventRoute(
        "POST /form", "Lead", status="2xx", user_data=LEAF,
        custom_data={"content_name": "{form.name}", "plan": "{query.x}", "a": "{header.x-a}"},
    ),
    EventRoute("GET /p/{id:int}", "ViewContent", custom_data={"content_ids": "{path.id}"}),
    EventRoute("GET /s/{slug}", "ViewContent", custom_data={"content_name": "{path.slug}"}),
]  # fmt: skip


def encoded(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


def _header(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {"headers": {name: encoded(text)}}


def _posted(path: str, kind: str, make: Callable[[str], bytes]) -> Callable[[str], dict[str, Any]]:
    return lambda text: {
        "method": "POST", "path": path, "body": make(text), "headers": {"content-type": kind},
    }  # fmt: skip


def _multipart(text: str) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{text}"; filename="{text}"\r\n'
    return f"{head}X-A: {text}\r\n\r\n{text}\r\n--x--\r\n".encode()


def _head(text: str) -> bytes:
    return f"--x\r\n{text}\r\n{text}: form-data; name=name\r\n\r\nx\r\n--x--\r\n".encode()


def _awaited(text: str) -> bytes:
    return json.dumps({"u": "https://shop.example/p", "w": text, "k": ["PageView", text]}).encode()


def _asked(text: str) -> bytes:
    return json.dumps(
        {"u": f"https://shop.example/p?x={text}", "r": text, "d": {text: text}}
    ).encode()


def _told(text: str) -> bytes:
    return json.dumps({"e": [[text, text, text, "sent", text]], "k": [text, text]}).encode()


def _called(text: str) -> bytes:
    call = {"n": text, "i": text, "p": [text], "d": {"content_name": text, text: text}}
    return json.dumps({"u": "https://shop.example/", "m": [call], "k": ["", text]}).encode()


FORM = "application/x-www-form-urlencoded"
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "query": lambda text: {"query_string": encoded(text)},
    "value of a query": lambda text: {"query_string": f"x={encoded(text)}"},
    "path": lambda text: {"path": f"/{encoded(text)}"},
    "number in a path": lambda text: {"path": f"/p/{encoded(text)}"},
    "text in a path": lambda text: {"path": f"/s/{encoded(text)}"},
    "user-agent": _header("user-agent"),
    "referer": lambda text: {"headers": {"referer": f"https://a.example/?x={encoded(text)}"}},
    "cookie": _header("cookie"),
    "cookie _fbp": lambda text: {"headers": {"cookie": f"_fbp={encoded(text)}"}},
    "cookie capi_next": lambda text: {"headers": {"cookie": f"capi_next={encoded(text)}"}},
    "forwarded": _header("forwarded"),
    "x-forwarded-for": _header("x-forwarded-for"),
    "x-forwarded-host": _header("x-forwarded-host"),
    "x-forwarded-proto": _header("x-forwarded-proto"),
    "host": _header("host"),
    "origin": lambda text: {
        "method": "POST", "path": "/_capi/b", "body": b"{}",
        "headers": {"origin": f"https://{encoded(text)}"},
    },
    "authorization": lambda text: {
        "path": "/_capi/parity.json", "headers": {"authorization": f"Bearer {encoded(text)}"},
    },
    "content-encoding": lambda text: {
        "method": "POST", "path": "/_capi/b", "body": b"{}",
        "headers": {"content-encoding": encoded(text)},
    },
    "cookie _fbc": lambda text: {"headers": {"cookie": f"_fbc={encoded(text)}"}},
    "cookie of the report": lambda text: {
        "path": "/_capi/parity", "headers": {"cookie": f"capi_report={encoded(text)}"},
    },
    "click": lambda text: {"query_string": f"fbclid={encoded(text)}"},
    "key of json": _posted(
        "/form", "application/json", lambda text: json.dumps({"name": {text: text}}).encode()
    ),
    "number of json": _posted(
        "/form", "application/json", lambda text: b'{"name": %b}' % text.encode()
    ),
    "part's head": _posted("/form", "multipart/form-data; boundary=x", _head),
    "boundary": lambda text: {
        "method": "POST", "path": "/form", "body": b"--a\r\n\r\n",
        "headers": {"content-type": f"multipart/form-data; boundary={encoded(text)}"},
    },
    "image beacon": lambda text: {"path": "/_capi/b", "query_string": f"e={encoded(text)}"},
    "waiting events": _posted("/_capi/t", "text/plain", _awaited),
    "purpose": _header("sec-purpose"),
    "accept": _header("accept"),
    "content-type": lambda text: {
        "method": "POST", "path": "/form", "body": b"a=b",
        "headers": {"content-type": encoded(text)},
    },
    "content-length": lambda text: {
        "method": "POST", "path": "/form", "body": b"a=b",
        "headers": {"content-length": encoded(text), "content-type": FORM},
    },
    "form": _posted("/form", FORM, lambda text: f"name={text}".encode()),
    "form's names": _posted("/form", FORM, str.encode),
    "multipart": _posted("/form", "multipart/form-data; boundary=x", _multipart),
    "json": _posted("/form", "application/json", lambda text: json.dumps({"name": text}).encode()),
    "broken json": _posted("/form", "application/json", str.encode),
    "question": _posted("/_capi/t", "text/plain", _asked),
    "calls": _posted("/_capi/t", "text/plain", _called),
    "beacon": _posted("/_capi/b", "text/plain", _told),
    "broken beacon": _posted("/_capi/b", "text/plain", str.encode),
    "report's query": lambda text: {
        "path": "/_capi/parity.json", "query_string": f"from={encoded(text)}&event={encoded(text)}",
        "headers": {"authorization": "Bearer the-report-token"},
    },
    "login": _posted("/_capi/parity", FORM, lambda text: f"token={text}".encode()),
}  # fmt: skip


class Site:
    """An app whose view reads the body and tracks what it got."""

    def __init__(self, **settings: Any) -> None:
        self.capi = CAPI(make_config(routes=ROUTES, trusted_proxies=["203.0.113.0/24"], **settings))
        self.door = CAPIMiddleware(self._view, self.capi)

    async def _view(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        track("Search", search_string=body.decode("utf-8", "replace") or scope["path"])
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})

    def seconds(self, request: dict[str, Any]) -> float:
        """CPU seconds of one request."""
        start = time.thread_time()
        self.status(request)
        return time.thread_time() - start

    def status(self, request: dict[str, Any]) -> int:
        """What a request is answered with."""
        answers: list[int] = []
        headers = {
            "host": "shop.example", "origin": "https://shop.example",
            "user-agent": "Mozilla/5.0 (X11) Firefox/140", "sec-fetch-mode": "navigate",
            **request.get("headers", {}),
        }  # fmt: skip
        given = {
            "method": "GET", "path": "/", "query_string": "", "scheme": "https", **request,
            "headers": list(headers.items()),
        }  # fmt: skip
        path, query = given["path"], given.pop("query_string").encode("latin-1")
        scope = scope_for(
            given, raw_path=path.encode("latin-1", "replace"), query_string=query, state={}
        )

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.get("body", b""), "more_body": False}

        async def send(message: Any) -> None:
            answers.append(message.get("status", 0))

        asyncio.run(self.door(scope, receive, send))
        return answers[0]


def text_of(unit: str, tail: str, size: int) -> str:
    return unit * (size // len(unit)) + tail


def grows(cost: Callable[[str], float]) -> dict[str, str]:
    """The patterns with which something takes too long, and how.

    Looked at below the limit to which texts are cut, too: 8 KB of a header are cut nowhere.
    """
    wrong = {}
    for name, (unit, tail) in PATTERNS.items():
        for size in (8_000, 60_000):
            long = cost(text_of(unit, tail, size))
            if long > NOISE:
                long = min(long, *(cost(text_of(unit, tail, size)) for _ in range(2)))
                short = min(cost(text_of(unit, tail, size // 6)) for _ in range(3))
                if long > MOST * max(short, NOISE / MOST):
                    wrong[f"{name}, {size}"] = f"{short * 1e3:.1f} ms, {long * 1e3:.1f} ms"
    return wrong


@pytest.mark.parametrize("place", PLACES)
def test_the_work_on_what_a_visitor_sends_grows_with_its_length(place: str) -> None:
    site = Site()
    site.seconds({})
    assert grows(lambda text: site.seconds(PLACES[place](text))) == {}


@pytest.mark.parametrize("rule", READY_RULES)
def test_the_work_on_a_banner_s_cookie_grows_with_its_length(rule: str) -> None:
    site = Site(consent=rule)
    name = READY_RULES[rule].cookie

    def cost(text: str) -> float:
        return site.seconds({"headers": {"cookie": f"{name}={encoded(text)}"}})

    assert grows(cost) == {}


def _timed(call: Callable[[str], Any]) -> Callable[[str], float]:
    def seconds(text: str) -> float:
        start = time.thread_time()
        with suppress(CapiError, ValueError):
            call(text)
        return time.thread_time() - start

    return seconds


#: What reads texts wherever they come from, called as a site's own code may.
PARSERS: dict[str, Callable[[str], Any]] = {
    **{key: lambda text, key=key: UserData(**{key: text}).hashed() for key in MATCH_KEYS},  # type: ignore[misc]
    "country beside": lambda text: UserData(zp="1", st="x", country=text).hashed(),
    "custom_data": lambda text: clean("Lead", {text: text, "value": text, "currency": text}),
    "contents": lambda text: clean("Lead", {"contents": [{"id": text, text: text}]}),
    "what is nested": lambda text: clean("Lead", {"x": {text: [text, {text: text}]}}),
    "what is typed": lambda text: clean("Search", {"search_string": text, "content_name": text}),
    "visitor's text": Visitor.loads,
    "report's window": lambda text: parse_window({"from": text, "to": text, "tz": text}, 1.0),
    "identity": lambda text: identify(
        cookie_header=text, query=text, referer=f"https://a.example/?{text}", host=text, now_ms=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS)
def test_the_work_of_a_parser_grows_with_the_length_of_its_text(parser: str) -> None:
    assert grows(_timed(PARSERS[parser])) == {}


def test_whatever_is_asked_of_each_place_is_answered_by_what_is_named() -> None:
    """A place that nothing reads would be measured in vain."""
    site, found = Site(), {}
    for place, make in PLACES.items():
        request = make("a")
        path = request.get("path", "/")
        found[place] = site.status(request)
        assert not path.startswith("/_capi/") or found[place] != 404, place
