"""Real browsers with a planted mix of habits: the report tells the truth.

A visit takes a quarter of a second; `CAPI_VISITS=1000 CAPI_SEED=2` makes it a long run.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPI, CAPIMiddleware, EventRoute, Pixel, UserData
from capi_middleware.testing import FakeMeta
from capi_middleware.testing.faults import graph_error
from tests.browser.crowd import Delay, Ear, Truth, plan, visit_all
from tests.browser.site import own_snippet
from tests.support.configs import make_config
from tests.support.servers import serve

VISITS = int(os.environ.get("CAPI_VISITS", "200"))
SEED = int(os.environ.get("CAPI_SEED", "1"))
PIXELS = {"all": "1234567890", "sales": "5555555555", "refused": "7777777777"}
MONEY = {"value": "9.5", "currency": "EUR"}
ORDER = "{query.order}"
ROUTES = [
    EventRoute("GET /products/{sku}", "ViewContent"),
    EventRoute("POST /cart", "AddToCart", custom_data=MONEY),
    EventRoute("POST /checkout", "Purchase", custom_data=MONEY, dedupe_key=ORDER),
    EventRoute("GET /receipt", "Purchase", custom_data=MONEY, dedupe_key=ORDER),
    EventRoute("* /lead", "Lead"),
    EventRoute("GET /subscribed", "Subscribe"),
]
STRICT = {"content-security-policy": "script-src 'self'; connect-src 'self'"}
CACHED = {"cache-control": "public, max-age=600"}
CLICKS = (
    "<button id=wish onclick=\"fbq('track', 'AddToWishlist')\">wish</button>"
    "<button id=call onclick=\"fbq('track', 'Contact')\">call</button>"
)


def _site(meta_url: str) -> Starlette:
    heads = {
        "/revoked": own_snippet("fbq('consent', 'revoke')", meta_url),
        "/theme": own_snippet(f"fbq('init', '{PIXELS['all']}')", meta_url),
    }
    headers = {"/strict": STRICT, "/cached": CACHED}

    async def page(request: Request) -> Response:
        path = request.url.path
        return HTMLResponse(
            f"<!doctype html><html><head><title>{path}</title>{heads.get(path, '')}</head>"
            f"<body>{CLICKS if path == '/theme' else ''}</body></html>",
            headers=headers.get(path, {"cache-control": "no-store"}),
        )

    async def onward(request: Request) -> Response:
        return RedirectResponse("/basket" if request.url.path == "/cart" else "/thanks", 303)

    async def lead(request: Request) -> Response:
        return JSONResponse({"ok": True})

    return Starlette(
        routes=[
            Route("/cart", onward, methods=["POST"]),
            Route("/checkout", onward, methods=["POST"]),
            Route("/lead", lead, methods=["POST"]),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            Route("/{path:path}", page),
        ]
    )


@pytest.fixture
def meta() -> Iterator[tuple[FakeMeta, str]]:
    meta = FakeMeta()
    with serve(Delay(meta.app)) as url:
        yield meta, url


def _told(report: dict[str, Any]) -> Truth:
    """The report's numbers in the words of the truth; what is 0 is left out."""
    names = {pixel_id: name for name, pixel_id in PIXELS.items()}
    told: Truth = Counter()
    for one in report["events"]:
        event, pixel = one["event_name"], names[one["pixel_id"]]
        told[event, pixel, "matched"] = one["matched"]
        told[event, pixel, "unpaired"] = one["unpaired"]
        for side, field in (
            ("browser", "missing_browser"), ("server", "missing_server"), ("never", "suppressed")
        ):  # fmt: skip
            for cause, n in one[field].items():
                told[event, pixel, f"{side}: {cause}"] = n
    return +told


@pytest.mark.timeout(VISITS + 120)
def test_the_report_of_a_crowd_equals_what_was_planted(
    meta: tuple[FakeMeta, str], tmp_path: Path, swallowed: list[BaseException]
) -> None:
    fake, meta_url = meta
    refusal = graph_error("Invalid parameter", "100/2804050")
    fake.fail_next(400, refusal, times=None, pixel_id=PIXELS["refused"])
    config = make_config(
        pixels=[
            Pixel(PIXELS["all"], access_token="one"),
            Pixel(PIXELS["sales"], access_token="two", events=["Purchase", "Lead"]),
            Pixel(PIXELS["refused"], access_token="three", events=["Subscribe"]),
        ],
        routes=ROUTES,
        mirror=["Contact"],
        consent=lambda request: request.cookies.get("consent") != "no",
        store=f"sqlite:///{tmp_path}/capi.db",
        graph_url=meta_url,
        pixel_script_url=f"{meta_url}/en_US/fbevents.js",
        delivery=True,
    )
    capi = CAPI(config)

    def webhook(order: str) -> None:
        known = UserData(external_id=order)
        capi.track("Purchase", value="9.5", currency="EUR", dedupe_key=order, user_data=known)

    ear = Ear(CAPIMiddleware(_site(meta_url), capi))
    planted: list[Truth] = []
    failed: list[BaseException] = []

    def visit(site: str) -> None:
        try:
            planted.append(visit_all(plan(VISITS, seed=SEED), site, ear, webhook))
        except BaseException as error:
            failed.append(error)

    with serve(ear) as site:
        crowd = threading.Thread(target=visit, args=(site,))  # its event loop is its own
        crowd.start()
        crowd.join()
        assert failed == []
        capi.flush(30)
        answer = httpx.get(
            f"{site}/_capi/parity.json",
            headers={"authorization": "Bearer the-report-token"},
            timeout=30,
        )
    capi.close()
    # The machine is busy: a page may go out before its events are on disk, and none is lost.
    swallowed[:] = [error for error in swallowed if not isinstance(error, TimeoutError)]
    told = _told(answer.json())
    assert (told - planted[0], planted[0] - told) == (Counter(), Counter())
