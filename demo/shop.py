"""A small real shop: home, product, cart, checkout that redirects, and a thank-you page."""

import itertools
from dataclasses import dataclass, field
from html import escape
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPIMiddleware, Config, EventRoute, UserData, track
from demo.recipe import environment

PRODUCTS = {"kettle": ("A kettle", 39.0), "teapot": ("A teapot", 24.5), "cup": ("A cup", 7.9)}
CURRENCY = "EUR"


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


def items_of(request: Request) -> dict[str, int]:
    """The cart lives in a cookie: kettle.cup.cup."""
    items: dict[str, int] = {}
    for sku in request.cookies.get("cart", "").split("."):
        if sku in PRODUCTS:
            items[sku] = items.get(sku, 0) + 1
    return items


async def home(request: Request) -> Response:
    links = "".join(
        f"<li><a href=/products/{sku}>{escape(name)}</a> {price:.2f} {CURRENCY}</li>"
        for sku, (name, price) in PRODUCTS.items()
    )
    return page("Tea things", f"<ul>{links}</ul>")


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
    form = (
        "<form method=post action=/checkout><label>E-mail <input name=email type=email required "
        "value=jane@example.com></label> <button id=buy>Buy</button></form>"
    )
    return page("Cart", f"<ul>{lines}</ul>{form if items else '<p>Empty.'}")


async def checkout(request: Request) -> Response:
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
        user_data=UserData(em=order.email),
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
            EventRoute("GET /orders/{order_id}/thanks", "Purchase", dedupe_key="{path.order_id}"),
        ],
        **settings,
    )


def build() -> Starlette:
    """The shop itself: it knows nothing of Meta but the one track() call."""
    return Starlette(
        routes=[
            Route("/", home),
            Route("/products/{sku}", product),
            Route("/cart", add_to_cart, methods=["POST"]),
            Route("/cart", cart),
            Route("/checkout", checkout, methods=["POST"]),
            Route("/orders/{order_id}/thanks", thanks),
        ]
    )


def create() -> CAPIMiddleware:
    """The shop, wrapped in one line: for `uvicorn --factory`. See recipe.environment()."""
    return CAPIMiddleware(build(), config(**environment()))
