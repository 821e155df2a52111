"""The public API as users call it: type-checked by mypy --strict and by pyright, never run."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any, assert_type

from flask import Flask
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request

import capi_middleware.wsgi
from capi_middleware import (
    CAPI,
    CapiError,
    CAPIMiddleware,
    Config,
    ConfigError,
    Event,
    EventRoute,
    Pixel,
    UserData,
    Visitor,
    current_visitor,
    track,
)
from capi_middleware.django import get_capi
from capi_middleware.flask import init_app
from capi_middleware.testing import Captured, FakeMeta, FrozenClock, MemoryStore, capture


def visitor_of(request: Request) -> UserData | None:
    return UserData(em=[str(request.user), "b@c.example"], db=date(1997, 2, 16))


async def consent_of(request: Request) -> bool:
    return "consent" in request.cookies


config = Config(
    secret_key=[
        "a-new-key-for-types-of-more-than-32-characters",
        "an-older-key-for-types-of-32-characters",
    ],
    pixels=[Pixel("1234567890", access_token="token", events=["Purchase", "OurOwnEvent"])],
    routes=[
        EventRoute("GET /products/{sku}", "ViewContent", custom_data={"content_ids": "{path.sku}"}),
        EventRoute("POST /form", "OurOwnEvent", dedupe_key=lambda request: request.url.path),
        EventRoute("* /any", "Lead", status="2xx", send="server", user_data=visitor_of),
    ],
    user_data=visitor_of,
    consent=consent_of,
    privacy="ignore-gpc",
    trusted_proxies=["10.0.0.0/8", "unix"],
    mirror=["Lead"],
    durability="all",
)
assert_type(config, Config)
assert_type(Config.load("capi.toml"), Config)
assert_type(Config.from_mapping({"store": "memory:"}), Config)
Config(secret_key="s", pixels=[], durability="sometimes")  # type: ignore[arg-type]
EventRoute("GET /", "Lead", send="nowhere")  # type: ignore[arg-type]

capi = CAPI(config)
app = CAPIMiddleware(Starlette(), config)
CAPIMiddleware(Litestar(), capi)
CAPIMiddleware(Quart("shop"), capi)
CAPIMiddleware(app, capi)
Starlette().add_middleware(CAPIMiddleware, config=config)
application = capi_middleware.wsgi.CAPIMiddleware(Flask("shop"), config)
assert_type(application.capi, CAPI)
assert_type(init_app(Flask("shop"), config), CAPI)
assert_type(get_capi(), CAPI)


def plain_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return []


capi_middleware.wsgi.CAPIMiddleware(plain_wsgi, capi)


def in_a_view() -> str:
    event = track(
        "Purchase",
        value=Decimal("19.90"),
        currency="EUR",
        contents=[{"id": "cup", "quantity": 2}],
        user_data=UserData(em="a@b.example", external_id=7),
        dedupe_key=1001,
        order_id="1001",
    )
    assert_type(event, Event)
    assert_type(event.event_id, str)
    track("OurOwnEvent", anything={"at": ["all"]})
    track()  # type: ignore[call-arg]
    track("Lead", currency=5)  # type: ignore[arg-type]
    UserData(email="a@b.example")  # type: ignore[call-arg]
    assert_type(current_visitor(), Visitor)
    return current_visitor().dumps()


def in_a_job(text: str) -> bool:
    try:
        assert_type(capi.track("Lead", visitor=Visitor.loads(text)), Event)
    except ConfigError as error:
        assert_type(error, ConfigError)
    except CapiError:
        return False
    capi.close(timeout=5)
    return capi.flush(2.5)


def in_a_test(captured: Captured) -> None:
    assert_type(captured.events, list[Event])
    assert_type(captured.assert_tracked("Purchase", value=19.9, times=1), list[Event])
    clock = FrozenClock(0)
    clock.advance(3600)
    MemoryStore(clock=clock)
    with capture() as more, FakeMeta(clock=clock).serve() as url:
        assert_type(more, Captured)
        assert_type(url, str)
