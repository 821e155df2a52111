"""What holds something of a visitor shows nothing of it in a repr, rich's own included."""

import pytest
from rich.pretty import pretty_repr

from capi_middleware.asgi import Waits, _Response
from capi_middleware.capture.beacon import Call, Question
from capi_middleware.capture.client import Client
from capi_middleware.capture.identity import Identity
from capi_middleware.capture.reading import Fields
from capi_middleware.endpoints.reporting import Asked
from capi_middleware.events import Event, PageEvent, Row
from capi_middleware.meta.payload import EventObject
from capi_middleware.meta.visitor import Visitor
from capi_middleware.store.records import DeadLetter, Lease, LeasedEvent
from capi_middleware.store.writer import Submission

SECRET = "of-a-visitor"
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
