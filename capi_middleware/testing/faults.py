"""Scripted failures: what a fake server answers instead of its own answer, and when."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from capi_middleware.meta import codes

#: Which requests a fault is for: the Graph API's events, what the pixel asks for, Meta's own view.
Endpoint = Literal[
    "events", "fbevents", "config", "tr", "dataset_quality", "stats", "account", "recommendations"
]
#: When the connection is cut: before the request counts, or after, so that only the answer is lost.
Drop = Literal["before", "after"]
#: What the Graph API says with a status, and its code.
_MESSAGES = {
    401: ("Invalid OAuth access token", codes.TOKEN_REFUSED),
    403: ("Permissions error", codes.FORBIDDEN),
    429: ("User request limit reached", codes.TOO_MANY_CALLS),
}
_UNKNOWN = ("An unknown error occurred", codes.UNKNOWN)


@dataclass(kw_only=True)
class Fault:
    """One scripted answer. `times` None means always, `delay` is in seconds."""

    status: int = 500
    body: Any = None
    times: int | None = 1
    delay: float = 0.0
    pixel_id: str | None = None
    drop: Drop | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    endpoint: Endpoint = "events"

    def __post_init__(self) -> None:
        if self.endpoint not in get_args(Endpoint):
            raise ValueError(f"endpoint is {self.endpoint!r}, expected one of {get_args(Endpoint)}")
        if self.drop not in (None, *get_args(Drop)):
            raise ValueError(f"drop is {self.drop!r}, expected one of {get_args(Drop)} or null")

    @property
    def only_delays(self) -> bool:
        """Whether the true answer follows after the delay."""
        return self.status == 200 and self.body is None and self.drop is None

    async def answer(self, truth: Response) -> Response:
        """The response to send instead of `truth`, after the delay."""
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.only_delays:
            return truth
        if self.drop is not None:
            return CutConnection()
        body, headers = self.body, dict(self.headers)
        if body is None and self.endpoint not in ("fbevents", "config", "tr"):
            message, code = _MESSAGES.get(self.status, _UNKNOWN)
            passing = self.status == 429 or self.status >= 500
            body = graph_error(message, code, is_transient=passing)
        if not isinstance(body, str | bytes | None):
            body = json.dumps(body)
            headers.setdefault("content-type", "application/json")
        return Response(body, self.status, headers, media_type="text/plain")


class CutConnection(Response):
    """An answer that breaks off, as when a server dies in the middle."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Promise a body and never send it. A client in this process gets the error itself."""
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise httpx.ReadError("the connection was cut")


def graph_error(
    message: str, code: str, *, blame: str = "", is_transient: bool = False
) -> dict[str, Any]:
    """An error body in the shape of Meta's page "Handling Errors"; `code` as in meta/codes.py."""
    number, _, subcode = code.partition("/")
    error: dict[str, Any] = {
        "message": message, "type": "OAuthException", "code": int(number),
        "is_transient": is_transient,
    }  # fmt: skip
    if subcode:
        error |= {"error_subcode": int(subcode)}
    if blame:
        error |= {
            "error_user_title": message,
            "error_user_msg": f"{message}: {blame}",
            "error_data": {"blame_field_specs": [[blame]]},
        }
    return {"error": {**error, "fbtrace_id": "AFakeMetaTraceIdentifier"}}
