"""Litestar: `gunicorn -k uvicorn_worker.UvicornWorker demo.litestar_app:app`."""

import itertools
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, get, post
from litestar.connection import ASGIConnection
from litestar.enums import RequestEncodingType
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import Body
from litestar.response import Redirect
from starlette.requests import Request as StarletteRequest

from capi_middleware import CAPIMiddleware, Config, EventRoute, UserData, track
from demo.recipe import HOME, PRODUCT, THANKS, environment

orders = itertools.count(1)
Sent = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]


@dataclass
class User:
    """Somebody who logged in."""

    email: str


class SessionUser(AbstractAuthenticationMiddleware):
    """Who logged in before."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        email = connection.session.get("email")
        return AuthenticationResult(user=User(email) if email else None, auth=None)


@get("/", media_type=MediaType.HTML)
async def home() -> str:
    return HOME


@post("/consent")
async def consent(data: Sent) -> Redirect:
    response = Redirect("/", status_code=303)
    response.set_cookie("consent", data["answer"], samesite="lax")
    return response


@post("/login")
async def login(data: Sent, request: Request[Any, Any, Any]) -> Redirect:
    request.set_session({"email": data["email"]})
    return Redirect("/", status_code=303)


@get("/products/{sku:str}", media_type=MediaType.HTML)
async def product(sku: str) -> str:
    return PRODUCT


@post("/buy")
async def buy() -> Redirect:
    return Redirect(f"/orders/{next(orders)}/thanks", status_code=303)


@get("/orders/{number:int}/thanks", media_type=MediaType.HTML)
async def thanks(number: int) -> str:
    track("Purchase", value=39.0, currency="EUR")
    return THANKS


def visitor(request: StarletteRequest) -> UserData | None:
    user = request.scope.get("user")  # where every ASGI framework puts it
    return UserData(em=user.email) if user else None


config = Config(
    routes=[
        EventRoute("GET /products/{sku}", "ViewContent", custom_data={"content_ids": "{path.sku}"}),
        EventRoute("GET /orders/{number:int}/thanks", "Purchase", dedupe_key="{path.number}"),
    ],
    user_data=visitor,
    consent={"value": "{cookie.consent}", "granted": ["granted"]},
    **environment(),
)
session = ServerSideSessionConfig()
shop = Litestar(
    [home, consent, login, product, buy, thanks],
    middleware=[session.middleware, SessionUser],
)
app = CAPIMiddleware(shop, config)
