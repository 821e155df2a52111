"""Flask's init_app, between Flask's own test client and views."""

import json
from typing import Any

import pytest
from flask import Flask, g, request, session

from capi_middleware import CAPI, Config, EventRoute, UserData, track
from capi_middleware.errors import ConfigError
from capi_middleware.flask import init_app
from tests.support.blocks import question
from tests.support.configs import PIXEL_ID, SECRET, TOKEN, make_config
from tests.support.stores import states

PAGE = "<!doctype html><html><head><title>x</title></head><body></body></html>"
BROWSER = {"user-agent": "Mozilla/5.0"}


def make_app(config: Config | CAPI | None = None) -> Flask:
    app = Flask("site")
    app.secret_key = SECRET
    init_app(app, config or make_config())

    @app.before_request
    def name_user() -> None:
        g.email = "jane@example.com"

    @app.get("/log-in")
    def log_in() -> str:
        session["email"] = "jane@example.com"
        return "you are in"

    @app.get("/")
    def page() -> str:
        track("Lead")
        return PAGE

    @app.get("/cached")
    def cached() -> Any:
        return PAGE, {"cache-control": "public, max-age=60"}

    return app


def get(app: Flask, path: str = "/") -> Any:
    return app.test_client().get(path, headers=BROWSER)


def sent_keys(app: Flask, name: str) -> int:
    """The mask of the match keys of an event."""
    capi: CAPI = app.extensions["capi"]
    (mask,) = (state[4] for state in states(capi.store) if state[1] == name)
    return mask


def test_a_page_is_tagged_and_its_view_tracks() -> None:
    app = make_app()
    answer = get(app)
    assert b"data-c" in answer.data
    assert [state[1] for state in states(app.extensions["capi"].store)] == ["Lead", "PageView"]


def test_callables_get_flask_s_request_inside_of_its_context() -> None:
    seen = []

    def who(theirs: Any) -> UserData:
        seen.append((theirs.path, theirs.endpoint, theirs is request._get_current_object()))  # type: ignore[attr-defined]
        return UserData(em=g.email)

    app = make_app(make_config(user_data=who))
    get(app)
    assert seen == [("/", "page", True)]
    assert sent_keys(app, "Lead") & 1


def test_expressions_read_what_is_in_g() -> None:
    app = make_app(make_config(user_data={"em": "{state.email}"}))
    get(app)
    assert sent_keys(app, "Lead") & 1


def test_a_page_from_a_cache_asks_inside_of_flask_s_context() -> None:
    route = EventRoute("GET /cached", "ViewContent")
    app = make_app(make_config(routes=[route], user_data=lambda _: UserData(em=session["email"])))
    client = app.test_client()
    client.get("/log-in", headers=BROWSER)
    shown = client.get("/cached", headers=BROWSER).text
    given = question(shown, "http://localhost/cached")
    answer = client.post("/_capi/t", data=json.dumps(given), headers=BROWSER)
    assert answer.status_code == 200
    assert sent_keys(app, "ViewContent") & 1


def test_settings_are_plain_data_in_the_app_s_config() -> None:
    app = Flask("site")
    app.config["CAPI"] = {
        "secret_key": SECRET,
        "pixels": [{"id": PIXEL_ID, "access_token": TOKEN}],
        "store": "memory:",
    }
    assert init_app(app) is app.extensions["capi"]


def test_missing_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"found nothing, expected a mapping.*app\.config"):
        init_app(Flask("site"))


def test_the_capi_of_jobs_serves_the_app_too() -> None:
    capi = CAPI(make_config())
    assert make_app(capi).extensions["capi"] is capi
