"""What holds something of a visitor shows nothing of it in a repr, rich's own included."""

import sys
from collections.abc import Callable
from traceback import walk_tb
from unittest.mock import patch

import pytest
from flask import Flask
from rich.pretty import pretty_repr

from capi_middleware import CAPI, Config, ConfigError, Pixel, Tenant
from capi_middleware.asgi import Waits, _Response
from capi_middleware.capture.beacon import Call, Question
from capi_middleware.capture.client import Client
from capi_middleware.capture.identity import Identity
from capi_middleware.capture.reading import Fields
from capi_middleware.endpoints.reporting import Asked
from capi_middleware.events import Event, PageEvent, Row
from capi_middleware.flask import init_app
from capi_middleware.meta.payload import EventObject
from capi_middleware.meta.visitor import Visitor
from capi_middleware.store.records import DeadLetter, Lease, LeasedEvent
from capi_middleware.store.writer import Submission

SECRET = "of-a-visitor"
KEY = "a-key-of-a-site-of-32-characters"
FLASK = Flask("shop")
FLASK.config["CAPI"] = {"secret_key": KEY, "report_token": SECRET, "pixels": ""}
SCOPE = {"headers": [(b"cookie", SECRET.encode())]}
ROW = Row("e1", "Lead", "1", 0.0, SECRET.encode())
LEASED = LeasedEvent(1, "e1", "Lead", 0.0, SECRET.encode(), 0)


@pytest.mark.parametrize(
    "value",
    [
        Fields(SCOPE, {"cookie": SECRET}, None),
        _Response(None, SCOPE, None, "/", ""),  # type: ignore[arg-type] # nothing is called
        Client(SECRET, "https", SECRET),
        Identity(SECRET, SECRET, None, []),
        PageEvent("Lead", "e1", {"search_string": SECRET}, ("1",)),
        Asked(SCOPE, {"cookie": SECRET}, SECRET.encode(), Waits()),
        Visitor(fbp=SECRET, client_ip_address=SECRET),
        Event("e1", "Lead", 0.0, ("1",), user_data={"client_ip_address": SECRET}),
        EventObject("Lead", 0, "e1", "website", {"fbp": SECRET}),
        ROW,
        Submission("append", [ROW], None),
        LEASED,
        Lease("l1", [LEASED]),
        DeadLetter(1, "e1", "Lead", "1", 0.0, "", 1, SECRET.encode()),
        Call(n="Lead", i="e1", p=["1"], d={"search_string": SECRET}),
        Question(u=SECRET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_repr_shows_what_is_of_a_visitor(value: object) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in pretty_repr(value)


def store_without_psycopg(url: str) -> None:
    with patch.dict(sys.modules, {"capi_middleware.store.postgres": None}):
        CAPI(Config(KEY, [Pixel("1", "t")], store=url))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pixel("abc", access_token=SECRET),
        lambda: Pixel("1", access_token=SECRET, app_secrets="x"),  # type: ignore[call-arg]
        lambda: Tenant("a b", [], report_token=SECRET),
        lambda: Config(KEY, [Pixel("1", SECRET)], prefix="none", report_token=SECRET),
        lambda: Config(KEY, [Pixel("1", SECRET)], report_token="short"),
        lambda: Config([KEY, "short"], [Pixel("1", SECRET)]),
        lambda: Config.from_mapping({"secret_key": KEY, "routs": []}),
        lambda: Config.from_mapping(
            {"secret_key": KEY, "pixels": [{"id": "1", "access_token": SECRET, "names": ""}]}
        ),
        lambda: init_app(FLASK),
        lambda: store_without_psycopg(f"postgresql://u:{SECRET}@h/d"),
    ],
    ids=[
        "pixel",
        "argument",
        "tenant",
        "type",
        "token",
        "list",
        "mapping",
        "table",
        "flask",
        "store",
    ],
)
def test_what_fails_at_start_up_shows_no_key_and_no_token_in_its_frames(
    make: Callable[[], object],
) -> None:
    """Error trackers send the variables of each frame along, for Flask's app its repr."""
    with pytest.raises((ConfigError, TypeError)) as caught:
        make()
    error: BaseException | None = caught.value
    while error is not None:
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        ours = [one for one in frames if one.f_code.co_filename != __file__]
        told = repr([frame.f_locals for frame in ours])
        assert [one for one in (SECRET, KEY) if one in told] == []
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
