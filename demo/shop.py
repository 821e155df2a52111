"""A small real shop: home, search, newsletter, product, cart, checkout and a thank-you page."""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPIMiddleware, Config, EventRoute, Pixel, UserData, track

PRODUCTS = {"kettle": ("A kettle", 39.0), "teapot": ("A teapot", 24.5), "cup": ("A cup", 7.9)}
CURRENCY = "EUR"
TOKEN = "demo-access-token"


@dataclass
class Order:
    """What somebody bought."""

    number: int
    email: str
    items: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The amount in CURRENCY."""
        return round(sum(PRODUCTS[sku][1] * n for sku, n in self.items.items()), 2)


ORDERS: dict[str, Order] = {}
_numbers = itertools.count(1001)


def page(title: str, body: str) -> HTMLResponse:
    """A page of the shop."""
    return HTMLResponse(
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        "<meta name=viewport content='width=device-width'><style>body{font:1.1rem system-ui;"
        "max-width:40rem;margin:2rem auto;padding:0 1rem}button,input{font:inherit;padding:.4rem}"
        "</style></head>"
        f"<body><p><a href=/>Shop</a> · <a href=/cart>Cart</a></p><h1>{escape(title)}</h1>{body}"
        "</body></html>"
    )


def links(skus: Iterable[str]) -> str:
    """List items of products."""
    return "".join(
        f"<li><a href=/products/{sku}>{escape(PRODUCTS[sku][0])}</a> "
        f"{PRODUCTS[sku][1]:.2f} {CURRENCY}</li>"
        for sku in skus
    )


def items_of(request: Request) -> dict[str, int]:
    """The cart lives in a cookie: kettle.cup.cup."""
    items: dict[str, int] = {}
    for sku in request.cookies.get("cart", "").split("."):
        if sku in PRODUCTS:
            items[sku] = items.get(sku, 0) + 1
    return items


async def home(request: Request) -> Response:
    return page(
        "Tea things",
        f"<ul>{links(PRODUCTS)}</ul><form action=/search><label>Search <input name=q required>"
        "</label> <button id=search>Search</button></form><form method=post action=/newsletter>"
        "<label>E-mail <input name=email type=email required></label> "
        "<button id=subscribe>Get the newsletter</button></form>",
    )


async def search(request: Request) -> Response:
    wanted = request.query_params.get("q", "").lower()
    found = [sku for sku, (name, _) in PRODUCTS.items() if wanted in name.lower()]
    return page("Search", f"<ul>{links(found)}</ul>" if found else "<p>Nothing found.")


async def newsletter(request: Request) -> Response:
    email = str((await request.form()).get("email", ""))
    if "@" not in email:
        return HTMLResponse("<!doctype html><title>Newsletter</title><p>No e-mail address", 422)
    return page("Newsletter", f"<p>{escape(email)} will hear from us.")


async def product(request: Request) -> Response:
    sku = request.path_params["sku"]
    if sku not in PRODUCTS:
        return HTMLResponse("<!doctype html><title>Not found</title><p>No such thing", 404)
    name, price = PRODUCTS[sku]
    return page(
        name,
        f"<p>{price:.2f} {CURRENCY}</p><form method=post action=/cart>"
        f"<input type=hidden name=sku value={sku}><input type=hidden name=price value={price}>"
        "<button id=add>Add to cart</button></form>",
    )


async def add_to_cart(request: Request) -> Response:
    form = await request.form()
    sku = str(form.get("sku", ""))
    cart = request.cookies.get("cart", "")
    answer = RedirectResponse("/cart", 303)
    if sku in PRODUCTS:
        answer.set_cookie("cart", f"{cart}.{sku}".strip("."), samesite="lax")
    return answer


async def cart(request: Request) -> Response:
    items = items_of(request)
    lines = "".join(f"<li>{n} × {escape(PRODUCTS[sku][0])}</li>" for sku, n in items.items())
    onward = "<p><a id=checkout href=/checkout>Check out</a>"
    return page("Cart", f"<ul>{lines}</ul>{onward if items else '<p>Empty.'}")


async def checkout(request: Request) -> Response:
    if not items_of(request):
        return RedirectResponse("/cart", 303)
    return page(
        "Checkout",
        "<form method=post action=/checkout><label>E-mail <input name=email type=email required "
        "value=jane@example.com></label> <button id=buy>Buy</button></form>",
    )


async def buy(request: Request) -> Response:
    form = await request.form()
    items = items_of(request)
    if not items:
        return RedirectResponse("/cart", 303)
    order = Order(next(_numbers), str(form.get("email", "")), items)
    ORDERS[str(order.number)] = order
    answer = RedirectResponse(f"/orders/{order.number}/thanks", 303)
    answer.delete_cookie("cart")
    return answer


async def thanks(request: Request) -> Response:
    order = ORDERS.get(request.path_params["order_id"])
    if order is None:
        return HTMLResponse("<!doctype html><title>Not found</title><p>No such order", 404)
    track(
        "Purchase",
        value=order.total,
        currency=CURRENCY,
        contents=[
            {"id": sku, "quantity": n, "item_price": PRODUCTS[sku][1]}
            for sku, n in order.items.items()
        ],
        content_type="product",
        user_data=UserData(em=order.email or None),
    )
    return page("Thank you", f"<p>Order {order.number}: {order.total:.2f} {CURRENCY}</p>")


def config(**settings: Any) -> Config:
    """How the shop's requests are events. `settings` go to Config."""
    return Config(
        routes=[
            EventRoute(
                "GET /products/{sku}",
                "ViewContent",
                custom_data={"content_ids": ["{path.sku}"], "content_type": "product"},
            ),
            EventRoute(
                "POST /cart",
                "AddToCart",
                custom_data={
                    "value": "{form.price}",
                    "currency": CURRENCY,
                    "content_ids": ["{form.sku}"],
                    "content_type": "product",
                },
            ),
            EventRoute("GET /search", "Search", custom_data={"search_string": "{query.q}"}),
            EventRoute(
                "POST /newsletter",
                "Lead",
                status="2xx",  # the page says thanks, and refuses with a 4xx
                user_data={"em": "{form.email}"},
            ),
            EventRoute("GET /checkout", "InitiateCheckout", status="200"),
            EventRoute("GET /orders/{order_id}/thanks", "Purchase", dedupe_key="{path.order_id}"),
        ],
        **settings,
    )


#: The shop itself: it knows nothing of Meta but the one track() call.
ROUTES = [
    Route("/", home),
    Route("/search", search),
    Route("/newsletter", newsletter, methods=["POST"]),
    Route("/products/{sku}", product),
    Route("/cart", add_to_cart, methods=["POST"]),
    Route("/cart", cart),
    Route("/checkout", checkout),
    Route("/checkout", buy, methods=["POST"]),
    Route("/orders/{order_id}/thanks", thanks),
]


def settings(meta: str, store: str, secret_key: str, access_token: str = TOKEN) -> Config:
    """The demo's Config; `meta` is the address of the fake Meta."""
    return config(
        secret_key=secret_key,
        pixels=[Pixel("1234567890", access_token=access_token, read_token="demo-read-token")],
        store=store,
        report_token="the-demo-report-token",
        ad_account="act_1001",
        insights_hours=0,  # the fake Meta has nothing to tell before somebody shopped
        trusted_proxies=["127.0.0.1"],
        graph_url=meta,
        pixel_script_url=f"{meta}/en_US/fbevents.js",
    )


def wrapped(meta: str, store: str, secret_key: str) -> CAPIMiddleware:
    """The shop, wrapped in one line."""
    return CAPIMiddleware(Starlette(routes=ROUTES), settings(meta, store, secret_key))


def create() -> CAPIMiddleware:
    """The wrapped shop for `uvicorn --factory`; the environment says where everything is."""
    environ = os.environ
    return wrapped(environ["CAPI_META"], environ["CAPI_STORE"], environ["CAPI_SECRET_KEY"])
