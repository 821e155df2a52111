"""A Flask shop for many processes: `gunicorn --workers 4 demo.production.app:app`.

The same for the container of this folder and for `make demo-production`. Its couriers are processes
of their own: `capi-middleware --config demo.production.app:config deliver`.
"""

import os
import secrets
from typing import Any

from flask import Flask, g, redirect, request, session
from flask.typing import ResponseReturnValue

from capi_middleware import Config, EventRoute, Pixel
from capi_middleware.flask import init_app

#: What it takes from the environment beside the addresses of a fake Meta, see demo.recipe.
SECRET_KEY, STORE = os.environ["CAPI_SECRET_KEY"], os.environ["CAPI_STORE"]
PAGE = "<!doctype html><html lang=en><head><meta charset=utf-8><title>{0}</title></head><body>{1}"
FORM = (
    "<h1>A kettle</h1><form method=post action=/buy><input name=email type=email required>"
    "<button>Buy it for 39.00 EUR</button></form>"
)

app = Flask("shop")
app.secret_key = SECRET_KEY


@app.before_request
def name_visitor() -> None:
    g.email = session.get("email")


@app.get("/")
def home() -> str:
    return PAGE.format("Tea things", "<h1>Tea things</h1><a href=/products/kettle>A kettle</a>")


@app.get("/products/<sku>")
def product(sku: str) -> str:
    return PAGE.format("A kettle", FORM)


@app.post("/buy")
def buy() -> ResponseReturnValue:
    session["email"] = request.form["email"]
    # A number that four processes do not give twice.
    return redirect(f"/orders/{secrets.randbelow(10**12)}/thanks", 303)


@app.get("/orders/<int:number>/thanks")
def thanks(number: int) -> str:
    return PAGE.format("Thank you", "<h1>Thank you</h1>")


@app.get("/health")
def health() -> ResponseReturnValue:
    return {"host": request.host}


def _meta() -> dict[str, Any]:
    meta = os.environ.get("CAPI_META")  # a fake one; without it, Meta's own
    return {"graph_url": meta, "pixel_script_url": f"{meta}/en_US/fbevents.js"} if meta else {}


config = Config(
    secret_key=SECRET_KEY,
    pixels=[
        Pixel(
            os.environ.get("CAPI_PIXEL", "1234567890"),
            access_token=os.environ.get("CAPI_ACCESS_TOKEN", "demo-access-token"),
        )
    ],
    routes=[
        EventRoute("GET /products/{sku}", "ViewContent", custom_data={"content_ids": "{path.sku}"}),
        EventRoute("POST /buy", "InitiateCheckout", user_data={"em": "{form.email}"}),
        EventRoute(
            "GET /orders/{number:int}/thanks", "Purchase", dedupe_key="{path.number}",
            custom_data={"value": 39.0, "currency": "EUR", "content_ids": ["kettle"]},
        ),
    ],
    user_data={"em": "{state.email}"},
    store=STORE,
    report_token=os.environ.get("CAPI_REPORT_TOKEN", "the-demo-report-token"),
    delivery=False,  # couriers are processes of their own
    exclude=["/health"],
    trusted_proxies=["127.0.0.1/32", "172.16.0.0/12"],  # nginx, and the networks of containers
    **_meta(),
)  # fmt: skip
init_app(app, config)
