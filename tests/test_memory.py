"""What visitors send is remembered within 8 MB, however long and however different it is."""

import functools
import gc
import tracemalloc
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from capi_middleware import UserData
from capi_middleware.capture.client import Proxies, noise, read_client
from capi_middleware.capture.identity import identify
from capi_middleware.capture.limits import Allowance, Repeats
from capi_middleware.capture.urls import scrub_url, source_url
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.event_object import meant_by, standard_name
from capi_middleware.page.gate import inspect
from capi_middleware.request.issuing import Issuer
from capi_middleware.wsgi import scope_of
from tests.support.configs import make_config

MOST = 8 * 1024 * 1024
#: Distinct values that each memory is fed with, and how many characters are put after each.
TIMES, LENGTHS = 2200, (0, 20, 100, 250, 330, 900, 4000)
Feed = Callable[[str], Any]
WEB = {"wsgi.url_scheme": "https", "REQUEST_METHOD": "GET"}


def fed() -> dict[str, Feed]:
    """What puts a text of a visitor into each memory, by the function that remembers."""
    issuer = Issuer(make_config(), SimpleNamespace(count=print), clock=float)  # type: ignore[arg-type]
    rows = issuer._rows

    def shown(text: str) -> None:
        visitor: Any = SimpleNamespace(
            event_source_url=f"https://a.example/{text}", client_user_agent=text, country=text,
            client_ip_address=None, fbp=None, fbc=None,
        )  # fmt: skip
        rows([], visitor, "expected")

    def hashed(text: str) -> None:
        UserData(fn=text, ct=text, zp=text, st=text, country=text, ge=text).hashed()

    def answered(text: str) -> None:
        kind = f"text/html; charset={text}".encode()
        policy = f"script-src 'self' {text}".encode()
        head = [(b"content-type", kind), (b"content-security-policy", policy)]
        inspect("GET", 200, head, host="a.example", scheme="https")

    def called(text: str) -> None:
        identify(cookie_header="", query="", referer=None, host=f"{text}.example.com", now_ms=1)

    return {
        "_kind_of": lambda text: noise("GET", "/", {"user-agent": text}),
        "_public_ip": lambda text: read_client(text, "https", {}, Proxies()),
        "_address": lambda text: source_url("https", f"{text[:99]}.example", text.encode(), b""),
        "_kind": lambda text: scrub_url(f"https://a.example/?{text}=1"),
        "_page_name_of": shown,
        "agent_of": shown,
        "device_of": shown,
        "digest": hashed,
        "_judge": answered,
        "_rule": answered,
        "_domain_of": called,
        "_meant_by": meant_by,
        "_standard_name": standard_name,
        "_header": lambda text: scope_of({**WEB, f"HTTP_{text}": "1"}),
    }


def bought(n: int) -> Any:
    data = {"value": n, "currency": "EUR"}
    return SimpleNamespace(event_name=f"{n:0100}", event_id="t", custom_data=data)


def who(n: int) -> Any:
    return SimpleNamespace(client_ip_address=None, fbp=f"fb.1.1.{n}")


def remembering() -> set[str]:
    """The functions of ours that remember what they are called with."""
    return {
        one.__name__
        for one in gc.get_objects()
        if type(one) is functools._lru_cache_wrapper  # no look at what an object claims to be
        and type(one.__wrapped__) is FunctionType  # not what a test put in a place of ours
        and one.__module__.startswith("capi_middleware.")
        and one.cache_parameters()["maxsize"] is not None
    }


def test_what_is_remembered_of_visitors_takes_less_than_8_mb() -> None:
    feeds: dict[str, Feed] = {**fed(), "clean": lambda text: clean("Lead", {text: text})}
    for feed in feeds.values():
        feed("warm")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    limits = [Allowance(rate=1, burst=9, of_all=9) for _ in range(2)]
    repeats = Repeats()
    for n in range(4_000):
        for limit in limits:
            limit.take(f"2a02:{n:x}::1", 1.0)
        repeats.look(bought(n), who(n), f"/{n}", 1.0)
    for feed in dict.fromkeys(feeds.values()):
        for n in range(TIMES):
            feed(f"{n:05}{'a' * LENGTHS[n % len(LENGTHS)]}")
    gc.collect()
    took = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert took < MOST, f"{took:,} bytes"
    assert repeats.look(bought(3999), who(3999), "/", 1.0)[0]  # they still know what came last


def test_each_memory_is_fed_by_that_test() -> None:
    assert remembering() - fed().keys() == set()
