"""Flask: `waitress-serve demo.flask_app:app`. The visitor is in Flask's g, as logins put it."""

import itertools
import os

from flask import Flask, g, redirect, request, session
from flask.typing import ResponseReturnValue

from capi_middleware import Config, EventRoute, track
from capi_middleware.flask import init_app
from demo.recipe import HOME, PRODUCT, THANKS, environment

orders = itertools.count(1)
app = Flask("shop")
app.secret_key = os.environ["CAPI_SECRET_KEY"]


@app.before_request
def name_user() -> None:
    g.email = session.get("email")


@app.get("/")
def home() -> str:
    return HOME


@app.post("/consent")
def consent() -> ResponseReturnValue:
    response = redirect("/", 303)
    response.set_cookie("consent", request.form["answer"], samesite="Lax")
    return response


@app.post("/login")
def login() -> ResponseReturnValue:
    session["email"] = request.form["email"]
    return redirect("/", 303)


@app.get("/products/<sku>")
def product(sku: str) -> str:
    return PRODUCT


@app.post("/buy")
def buy() -> ResponseReturnValue:
    return redirect(f"/orders/{next(orders)}/thanks", 303)


@app.get("/orders/<int:number>/thanks")
def thanks(number: int) -> str:
    track("Purchase", value=39.0, currency="EUR")
    return THANKS


app.config["CAPI"] = Config(
    routes=[
        EventRoute("GET /products/{sku}", "ViewContent", custom_data={"content_ids": "{path.sku}"}),
        EventRoute("GET /orders/{number:int}/thanks", "Purchase", dedupe_key="{path.number}"),
    ],
    user_data={"em": "{state.email}"},
    consent={"value": "{cookie.consent}", "granted": ["granted"]},
    **environment(),
)
init_app(app)
