"""Quart: `hypercorn demo.quart_app:app`. The visitor is in Quart's session."""

import itertools
import os
from typing import Any

from quart import Quart, make_response, redirect, request, session
from quart.typing import ResponseReturnValue

from capi_middleware import CAPIMiddleware, Config, EventRoute, track
from demo.recipe import HOME, PRODUCT, THANKS, environment

orders = itertools.count(1)
shop = Quart("shop")
shop.secret_key = os.environ["CAPI_SECRET_KEY"]


@shop.before_request
async def name_user() -> None:
    # Quart's session ends before the response starts: `{state.email}` is read after that.
    scope: Any = request.scope
    scope.setdefault("state", {})["email"] = session.get("email")


@shop.get("/")
async def home() -> str:
    return HOME


@shop.post("/consent")
async def consent() -> ResponseReturnValue:
    response = await make_response(redirect("/", 303))
    response.set_cookie("consent", (await request.form)["answer"], samesite="Lax")
    return response


@shop.post("/login")
async def login() -> ResponseReturnValue:
    session["email"] = (await request.form)["email"]
    return redirect("/", 303)


@shop.get("/products/<sku>")
async def product(sku: str) -> str:
    return PRODUCT


@shop.post("/buy")
async def buy() -> ResponseReturnValue:
    return redirect(f"/orders/{next(orders)}/thanks", 303)


@shop.get("/orders/<int:number>/thanks")
async def thanks(number: int) -> str:
    track("Purchase", value=39.0, currency="EUR")
    return THANKS


config = Config(
    routes=[
        EventRoute("GET /products/{sku}", "ViewContent", custom_data={"content_ids": "{path.sku}"}),
        EventRoute("GET /orders/{number:int}/thanks", "Purchase", dedupe_key="{path.number}"),
    ],
    user_data={"em": "{state.email}"},
    consent={"value": "{cookie.consent}", "granted": ["granted"]},
    **environment(),
)
app = CAPIMiddleware(shop, config)
