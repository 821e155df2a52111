"""Starlette: `uvicorn demo.starlette_app:app`. The visitor is Starlette's request.user."""

import itertools
import os

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from capi_middleware import CAPIMiddleware, Config, EventRoute, UserData, track
from demo.recipe import HOME, PRODUCT, THANKS, environment

orders = itertools.count(1)


class SessionUser(AuthenticationBackend):
    """Who logged in before."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        email = conn.session.get("email")
        return (AuthCredentials(["authenticated"]), SimpleUser(email)) if email else None


async def home(request: Request) -> Response:
    return HTMLResponse(HOME)


async def consent(request: Request) -> Response:
    form = await request.form()
    answer = RedirectResponse("/", 303)
    answer.set_cookie("consent", str(form["answer"]), samesite="lax")
    return answer


async def login(request: Request) -> Response:
    request.session["email"] = str((await request.form())["email"])
    return RedirectResponse("/", 303)


async def product(request: Request) -> Response:
    return HTMLResponse(PRODUCT)


async def buy(request: Request) -> Response:
    return RedirectResponse(f"/orders/{next(orders)}/thanks", 303)


async def thanks(request: Request) -> Response:
    track("Purchase", value=39.0, currency="EUR")
    return HTMLResponse(THANKS)


def visitor(request: Request) -> UserData | None:
    user = request.scope.get("user")  # not there where a cached page asks for its events
    return UserData(em=user.display_name) if user and user.is_authenticated else None


config = Config(
    routes=[
        EventRoute("GET /products/{sku}", "ViewContent", custom_data={"content_ids": "{path.sku}"}),
        EventRoute("GET /orders/{number:int}/thanks", "Purchase", dedupe_key="{path.number}"),
    ],
    user_data=visitor,
    consent={"value": "{cookie.consent}", "granted": ["granted"]},
    **environment(),
)
shop = Starlette(
    routes=[
        Route("/", home),
        Route("/consent", consent, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/products/{sku}", product),
        Route("/buy", buy, methods=["POST"]),
        Route("/orders/{number:int}/thanks", thanks),
    ],
    middleware=[
        Middleware(SessionMiddleware, secret_key=os.environ["CAPI_SECRET_KEY"]),
        Middleware(AuthenticationMiddleware, backend=SessionUser()),
    ],
)
app = CAPIMiddleware(shop, config)
