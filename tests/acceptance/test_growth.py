"""Whatever a visitor sends, the work grows no faster than its length."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, track
from capi_middleware.capture.consent import READY_RULES
from tests.support.configs import make_config
from tests.support.exchanges import scope_for

PAGE = b"<!doctype html><html><head><title>x</title></head><body>hi</body></html>"
#: Six times the input may take this many times as long: quadratic work takes 36 times.
MOST = 8.0
#: Less than this, in seconds, is noise: quadratic work on 60 KB takes a hundred times as long.
NOISE = 0.02

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
    "colons": ("a:", ""),
    "dashes": ("-a", ""),
    "cases": ("aA1", ""),
    "fbp": ("_fbp=fb.1.", ""),
    "names": ("_fbp", "="),
    "accents": ("é", ""),
    "wide": ("漢", ""),
    "forwarded": ("for=1,", ""),
    "fbclid": ("fbclid=a&", ""),
}
LEAF = {"em": "{form.name}", "ph": "{query.x}", "fn": "{json.name}", "external_id": "{cookie.c}"}
ROUTES = [
    EventRoute(
        "POST /form", "Lead", user_data=LEAF,
        custom_data={"content_name": "{form.name}", "plan": "{query.x}", "a": "{header.x-a}"},
    ),
    EventRoute("GET /p/{id:int}", "ViewContent"),
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
    "user-agent": _header("user-agent"),
    "referer": lambda text: {"headers": {"referer": f"https://a.example/?x={encoded(text)}"}},
    "cookie": _header("cookie"),
    "cookie _fbp": lambda text: {"headers": {"cookie": f"_fbp={encoded(text)}"}},
    "cookie capi_next": lambda text: {"headers": {"cookie": f"capi_next={encoded(text)}"}},
    "forwarded": _header("forwarded"),
    "x-forwarded-for": _header("x-forwarded-for"),
    "x-forwarded-host": _header("x-forwarded-host"),
    "host": _header("host"),
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
        "path": "/_capi/report", "query_string": f"token=report&event={encoded(text)}"
    },
    "login": _posted("/_capi/report", FORM, lambda text: f"token={text}".encode()),
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
            pass

        start = time.thread_time()
        asyncio.run(self.door(scope, receive, send))
        return time.thread_time() - start


def grows(site: Site, place: str) -> dict[str, str]:
    """The patterns with which a place takes too long, and how."""
    wrong = {}
    for name, (unit, tail) in PATTERNS.items():

        def cost(size: int, unit: str = unit, tail: str = tail) -> float:
            text = unit * (size // len(unit)) + tail
            return min(site.seconds(PLACES[place](text)) for _ in range(2))

        long = cost(60_000)
        if long > NOISE:
            short = cost(10_000)
            if long > MOST * max(short, NOISE / MOST):
                wrong[name] = f"{short * 1e3:.1f} ms for 10 KB, {long * 1e3:.1f} ms for 60 KB"
    return wrong


@pytest.mark.parametrize("place", PLACES)
def test_the_work_on_what_a_visitor_sends_grows_with_its_length(place: str) -> None:
    site = Site()
    site.seconds({})
    assert grows(site, place) == {}


@pytest.mark.parametrize("rule", READY_RULES)
def test_the_work_on_a_banner_s_cookie_grows_with_its_length(rule: str) -> None:
    site = Site(consent=rule)
    name = READY_RULES[rule].cookie
    PLACES["banner"] = lambda text: {"headers": {"cookie": f"{name}={encoded(text)}"}}
    assert grows(site, "banner") == {}
