"""Faults: what is often wrong with a shop's set-up, planted on purpose, and the flags that say so.

The shop of shop.py is healthy. Here some of its pages and routes are spoiled, as plain data.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from capi_middleware import Config, EventRoute
from demo.shop import ROUTES, cart, checkout


@dataclass(frozen=True)
class Fault:
    """One fault. `flags` are the (code, event_name) that it raises; the first names it."""

    planted: str
    flags: tuple[tuple[str, str], ...]


FAULTS = {
    "blocked": Fault("20 % of the visitors block the pixel", (("pixel_blocked", ""),)),
    "forgotten": Fault(
        "The theme fires AddToCart in the browser; nobody mapped it on the server",
        tuple(
            (code, "AddToCart")
            for code in (
                "server_missing", "coverage_below_target", "ratio_below_target", "event_id_missing"
            )
        ),
    ),
    "duplicate": Fault(
        "Purchase has no dedupe_key, and some load the thank-you page twice",
        (("repeated_events", "Purchase"),),
    ),
    "guests": Fault(
        "Guests may order without an e-mail address", (("match_key_missing", "Purchase"),)
    ),
    "token": Fault("The access token is refused for a while", (("delivery_interrupted", ""),)),
}  # fmt: skip
#: What "token" raises while it lasts.
PAUSED = ("pixel_paused", "")


def chosen(names: str) -> frozenset[str]:
    """The faults of "all", "none" or "blocked,token". Raises ValueError for one that is unknown."""
    if names in ("all", "none"):
        return frozenset(FAULTS if names == "all" else ())
    found = frozenset(names.split(","))
    if strange := found - FAULTS.keys():
        raise ValueError(
            f"found the faults {sorted(strange)}, expected some of {', '.join(FAULTS)}"
        )
    return found


def spoiled_config(config: Config, faults: Collection[str]) -> Config:
    """The shop's `config` as somebody writes it who forgets things."""
    routes: list[EventRoute] = []
    for route in config.routes:
        if route.event_name == "AddToCart" and "forgotten" in faults:
            continue
        if route.event_name == "Purchase" and "duplicate" in faults:
            route = replace(route, dedupe_key=None)
        routes.append(route)
    return replace(config, routes=routes)


def spoiled_routes(faults: Collection[str]) -> list[Route]:
    """The shop's pages, some of them by another theme."""
    views: dict[object, Callable[[Request], Awaitable[Response]]] = {}
    if "forgotten" in faults:
        views[cart] = _theme_cart
    if "guests" in faults:
        views[checkout] = _guest_checkout
    return [
        Route(route.path, views.get(route.endpoint, route.endpoint), methods=route.methods)
        for route in ROUTES
    ]


async def _theme_cart(request: Request) -> Response:
    answer = await cart(request)
    script = (
        b"<script>addEventListener('load', () => { if (document.referrer.includes('/products/'))"
        b" fbq('track', 'AddToCart', {value: 39, currency: 'EUR'}) })</script>"
    )
    return HTMLResponse(bytes(answer.body).replace(b"</body>", script + b"</body>"))


async def _guest_checkout(request: Request) -> Response:
    answer = await checkout(request)
    if answer.status_code != 200:
        return answer
    return HTMLResponse(bytes(answer.body).replace(b" required value=jane@example.com", b""))
