"""Two hosts of one site before one store, through three doors: the visitor stays who he is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, HttpResponseRedirect
from django.test import override_settings
from django.urls import re_path
from flask import Flask, redirect, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from capi_middleware import CAPI, CAPIMiddleware, EventRoute
from capi_middleware.django import get_capi
from capi_middleware.wsgi import CAPIMiddleware as WSGIMiddleware
from tests.request.test_events import AGENT, PAGE
from tests.support.blocks import block_of
from tests.support.configs import PIXEL_ID, make_config
from tests.support.django_project import ENTRY

CHECKOUT, WWW = "https://checkout.shop.example", "https://www.shop.example"
ROUTES = [EventRoute("POST /pay", "Lead", dedupe_key="{query.order}")]


async def starlette_view(request: Request) -> Response:
    to = request.query_params.get("to")
    return RedirectResponse(to, 303) if to else HTMLResponse(PAGE)


def flask_view(path: str = "") -> Any:
    to = request.args.get("to")
    return redirect(to, 303) if to else PAGE


def django_view(asked: Any) -> HttpResponse:
    to = asked.GET.get("to")
    return HttpResponseRedirect(to, status=303) if to else HttpResponse(PAGE)


@contextmanager
def open_site(door: str, **settings: Any) -> Iterator[tuple[CAPI, Any]]:
    """A site on every host, and a browser whose cookies follow their domains."""
    config = make_config(**{"routes": ROUTES, **settings})
    browser: Any = {"base_url": CHECKOUT, "headers": AGENT, "follow_redirects": True}
    if door == "Django":
        urls = (re_path("", django_view),)
        with override_settings(CAPI=config, MIDDLEWARE=[ENTRY], ROOT_URLCONF=urls):
            made = httpx.Client(transport=httpx.WSGITransport(WSGIHandler()), **browser)
            yield get_capi(), made
            get_capi().close()
        return
    capi = CAPI(config)
    if door == "Flask":
        app = Flask("shop")
        app.add_url_rule("/", view_func=flask_view, methods=["GET", "POST"])
        app.add_url_rule("/<path:path>", view_func=flask_view, methods=["GET", "POST"])
        app.wsgi_app = WSGIMiddleware(app.wsgi_app, capi)  # type: ignore[method-assign]
        yield capi, httpx.Client(transport=httpx.WSGITransport(app), **browser)
    else:
        routes = [Route("/{path:path}", starlette_view, methods=["GET", "POST"])]
        yield capi, TestClient(CAPIMiddleware(Starlette(routes=routes), capi), **browser)
    capi.close()


def says(client: Any, page: Any, word: str) -> Any:
    """What the script of this page tells the site that its visitor has answered."""
    block = block_of(page.text)
    about: dict[str, Any] = {name: block[name] for name in ("y", "g") if name in block}
    if "k" in block:
        about |= {"k": block["k"], "f": True}
    told = {"u": str(page.url), "x": word, **about}
    return client.post(page.url.join("/_capi/t"), json=told).json()


DOORS = ["Starlette", "Flask", "Django"]


@pytest.mark.parametrize("door", DOORS)
def test_answer_cookies_and_events_go_on_to_another_host_of_the_site(door: str) -> None:
    with open_site(door, consent=lambda request: "unanswered") as (capi, client):
        page = client.get("/?fbclid=Click-1")
        assert block_of(page.text)["x"] == "unanswered"
        assert [one["n"] for one in says(client, page, "granted")["e"]] == ["PageView"]
        thanks = client.post("/pay", params={"to": f"{WWW}/thanks", "order": "7"})
        assert thanks.url == f"{WWW}/thanks"
        block = block_of(thanks.text)
        assert sorted(one["n"] for one in block["e"]) == ["Lead", "PageView"]
        assert "x" not in block
        assert [one["n"] for one in block_of(client.get(f"{CHECKOUT}/").text)["e"]] == ["PageView"]
        # -- taken back on one host, it holds for the other
        says(client, thanks, "denied")
        for host in (WWW, CHECKOUT):
            assert client.get(f"{host}/").text == PAGE
        assert {one.name for one in client.cookies.jar} == {"capi_consent"}
        lease = capi.store.lease(PIXEL_ID, limit=100, seconds=60)
        told = [one.payload.decode() for one in lease.events]
        assert len(told) == 4
        for name in ("fbp", "fbc"):
            assert len({one.partition(f'"{name}":"')[2].partition('"')[0] for one in told}) == 1
        assert all("Click-1" in one for one in told)


@pytest.mark.parametrize("door", DOORS)
def test_a_narrower_domain_takes_in_what_is_below_it_alone(door: str) -> None:
    with open_site(door, cookie_domain="eu.shop.example") as (_, client):
        page = client.post("https://pay.eu.shop.example/pay?order=8&to=https://www.eu.shop.example")
        assert "Lead" in [one["n"] for one in block_of(page.text)["e"]]
        assert {one.domain for one in client.cookies.jar} == {".eu.shop.example"}
        client.cookies.clear()
        page = client.post(f"https://us.shop.example/pay?order=9&to={WWW}/")
        assert [one["n"] for one in block_of(page.text)["e"]] == ["PageView"]
        # Each host has its own.
        assert {one.domain for one in client.cookies.jar} <= {"us.shop.example", "www.shop.example"}


#: Whoever has a name below one of these is a site of its own.
SUFFIXES = ("co.uk", "github.io", "vercel.app", "netlify.app", "myshopify.com", "herokuapp.com")


@pytest.mark.parametrize("door", DOORS)
def test_no_cookie_is_for_all_who_share_a_suffix(door: str) -> None:
    with open_site(door) as (_, client):
        for suffix in SUFFIXES:
            answer = client.get(f"https://shop.{suffix}/?fbclid=Click-1")
            lines = answer.headers.get_list("set-cookie")
            assert [one.partition("=")[0].strip() for one in lines] == ["_fbp", "_fbc"]
            assert all(f"; Domain=.shop.{suffix};" in one for one in lines)
            to = f"https://other.{suffix}/"
            pays = client.post(f"https://shop.{suffix}/pay", params={"to": to, "order": suffix})
            assert [one["n"] for one in block_of(pays.text)["e"]] == ["PageView"]
            alone = client.get(f"https://{suffix}/?fbclid=Click-1").headers.get_list("set-cookie")
            assert alone
            assert not [one for one in alone if "Domain=" in one]
