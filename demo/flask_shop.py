"""The same shop in Flask, behind the WSGI door: `gunicorn 'demo.flask_shop:create()'`."""

import itertools
import os
from html import escape
from typing import Any

from flask import Flask, redirect, request

from capi_middleware import UserData, track, wsgi
from demo.shop import CURRENCY, ORDERS, PRODUCTS, Order, links, settings

_numbers = itertools.count(1001)


def page(title: str, body: str) -> str:
    """A page of the shop."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f"</head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def items() -> dict[str, int]:
    """The cart lives in a cookie: kettle.cup.cup."""
    skus = [sku for sku in request.cookies.get("cart", "").split(".") if sku in PRODUCTS]
    return {sku: skus.count(sku) for sku in skus}


def build() -> Flask:
    """The shop itself."""
    app = Flask("shop")

    @app.get("/")
    def home() -> str:
        return page("Tea things", f"<ul>{links(PRODUCTS)}</ul>")

    @app.get("/search")
    def search() -> str:
        wanted = request.args.get("q", "").lower()
        return page("Search", links(sku for sku in PRODUCTS if wanted in sku))

    @app.post("/newsletter")
    def newsletter() -> str:
        return page("Newsletter", "<p>You will hear from us.")

    @app.get("/products/<sku>")
    def product(sku: str) -> Any:
        if sku not in PRODUCTS:
            return page("Not found", ""), 404
        name, price = PRODUCTS[sku]
        return page(
            name,
            f"<form method=post action=/cart><input type=hidden name=sku value={sku}>"
            f"<input type=hidden name=price value={price}><button id=add>Add</button></form>",
        )

    @app.post("/cart")
    def add_to_cart() -> Any:
        answer = redirect("/cart", 303)
        cart = f"{request.cookies.get('cart', '')}.{request.form['sku']}".strip(".")
        answer.set_cookie("cart", cart, samesite="Lax")
        return answer

    @app.get("/cart")
    def cart() -> str:
        return page("Cart", "<a id=checkout href=/checkout>Check out</a>")

    @app.get("/checkout")
    def checkout() -> str:
        return page(
            "Checkout",
            "<form method=post action=/checkout><input name=email value=jane@example.com>"
            "<button id=buy>Buy</button></form>",
        )

    @app.post("/checkout")
    def buy() -> Any:
        order = Order(next(_numbers), request.form["email"], items())
        ORDERS[str(order.number)] = order
        answer = redirect(f"/orders/{order.number}/thanks", 303)
        answer.delete_cookie("cart")
        return answer

    @app.get("/orders/<order_id>/thanks")
    def thanks(order_id: str) -> Any:
        order = ORDERS.get(order_id)
        if order is None:
            return page("Not found", ""), 404
        track(
            "Purchase",
            value=order.total,
            currency=CURRENCY,
            contents=[{"id": sku, "quantity": n} for sku, n in order.items.items()],
            user_data=UserData(em=order.email),
        )
        return page("Thank you", f"<p>{order.total:.2f} {CURRENCY}</p>")

    return app


def create() -> Any:
    """The wrapped shop; CAPI_META and CAPI_STORE say where the fake Meta and the store are."""
    config = settings(
        os.environ["CAPI_META"], os.environ["CAPI_STORE"], os.environ["CAPI_SECRET_KEY"]
    )
    return wsgi.CAPIMiddleware(build(), config)
