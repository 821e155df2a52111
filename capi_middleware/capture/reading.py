"""Reading: what expressions find in a request, whichever door it came through."""

import json
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from capi_middleware.config.expressions import MISSING
from capi_middleware.private import Private

#: At most this much of a request body is kept for {form.x} and {json.x}, in bytes.
BODY_LIMIT = 64 * 1024


class BodyTee:
    """Keeps the first 64 KiB of a request body while the app reads all of it."""

    __slots__ = ("_kept", "whole")

    def __init__(self) -> None:
        self._kept = bytearray()
        #: False once the body was longer than what is kept.
        self.whole: bool = True

    def add(self, chunk: bytes) -> None:
        """One more piece of the body as the app got it."""
        room = BODY_LIMIT - len(self._kept)
        self._kept += chunk[:room]
        if len(chunk) > room:
            self.whole = False

    def bytes(self) -> bytes:
        """What was kept."""
        return bytes(self._kept)


class Fields(Private, Struct):
    """What expressions find in one request, an ASGI http scope; answers `Lookup` questions.

    A body that is too long, not read by the app or malformed answers MISSING, never an error.
    """

    _scope: MutableMapping[str, Any]
    _headers: Mapping[str, str]
    _tee: BodyTee | None
    #: What was read so far, by root. No cached_property: until Python 3.12 all requests of a
    #: process share its lock, and one parses a form under it.
    _read: dict[str, Any] = {}

    def __call__(self, root: str, names: tuple[str, ...]) -> Any:
        """The value of {root.names}; MISSING when the request has none."""
        if root == "state":
            return _walk(self._scope.get("state", {}), names)
        if root == "header":
            return self._headers.get(".".join(names).lower(), MISSING)
        if root not in self._read:
            self._read[root] = _READERS[root](self)
        found = self._read[root]
        return _walk(found, names) if root == "json" else found.get(".".join(names), MISSING)

    def _query(self) -> dict[str, str]:
        return _pairs(self._scope.get("query_string", b""))

    def _cookie(self) -> dict[str, str]:
        from starlette.requests import cookie_parser

        return cookie_parser(self._headers.get("cookie", ""))

    def _json(self) -> Any:
        body = self._body("json")
        try:
            return json.loads(body) if body else {}
        except (ValueError, RecursionError):
            return {}

    def _form(self) -> dict[str, str]:
        body = self._body("urlencoded")
        if body:
            return _pairs(body)
        body = self._body("multipart/form-data")
        return _multipart(self._headers["content-type"], body) if body else {}

    def _body(self, kind: str) -> bytes:
        if self._tee is None or not self._tee.whole:
            return b""
        return self._tee.bytes() if kind in self._headers.get("content-type", "").lower() else b""


_READERS: Mapping[str, Callable[[Fields], Any]] = {
    "query": Fields._query, "cookie": Fields._cookie, "json": Fields._json, "form": Fields._form,
}  # fmt: skip


def _pairs(encoded: bytes) -> dict[str, str]:
    pairs: dict[str, str] = {}
    try:
        for name, value in parse_qsl(encoded.decode("latin-1"), max_num_fields=1000):
            pairs.setdefault(name, value)
    except ValueError:
        pass
    return pairs


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    from email.parser import BytesParser
    from email.policy import HTTP

    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    fields: dict[str, str] = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str) and part.get_filename() is None:
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                fields.setdefault(name, payload.decode("utf-8", "replace"))
    return fields


def _walk(value: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if isinstance(value, Mapping):
            value = value.get(name, MISSING)
        elif isinstance(value, list):
            value = value[int(name)] if name.isdecimal() and int(name) < len(value) else MISSING
        else:
            value = getattr(value, name, MISSING)
        if value is MISSING:
            return MISSING
    return value
