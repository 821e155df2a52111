"""FastAPI: `granian --interface asgi demo.fastapi_app:app`. The visitor is a dependency."""

import itertools
import os
from typing import Annotated

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from capi_middleware import CAPIMiddleware, Config, EventRoute, track
from demo.recipe import HOME, PRODUCT, THANKS, environment

orders = itertools.count(1)


def current_user(request: Request) -> str | None:
    """Who logged in; `{state.email}` in the configuration reads it."""
    email: str | None = request.session.get("email")
    request.state.email = email
    return email


shop = FastAPI(dependencies=[Depends(current_user)])


@shop.get("/", response_class=HTMLResponse)
def home() -> str:
    return HOME


@shop.post("/consent")
def consent(answer: Annotated[str, Form()]) -> RedirectResponse:
    response = RedirectResponse("/", 303)
    response.set_cookie("consent", answer, samesite="lax")
    return response


@shop.post("/login")
def login(email: Annotated[str, Form()], request: Request) -> RedirectResponse:
    request.session["email"] = email
    return RedirectResponse("/", 303)


@shop.get("/products/{sku}", response_class=HTMLResponse)
def product(sku: str) -> str:
    return PRODUCT


@shop.post("/buy")
async def buy() -> RedirectResponse:
    return RedirectResponse(f"/orders/{next(orders)}/thanks", 303)


@shop.get("/orders/{number}/thanks", response_class=HTMLResponse)
def thanks(number: int) -> str:
    track("Purchase", value=39.0, currency="EUR")
    return THANKS


shop.add_middleware(SessionMiddleware, secret_key=os.environ["CAPI_SECRET_KEY"])
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
