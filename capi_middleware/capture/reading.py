"""Reading: what expressions find in a request, whichever door it came through."""

import json
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from capi_middleware.capture.client import headers_of
from capi_middleware.capture.forms import FIELD_READ, KEPT, SCANNED, Form, form_of
from capi_middleware.capture.urls import URL_READ
from capi_middleware.config.expressions import MISSING
from capi_middleware.private import Private


class BodyTee:
    """Reads a request body, of an ASGI http scope, while the app reads all of it.

    Of a form it keeps the fields `names`, of anything else the first 64 KiB.
    """

    __slots__ = ("_form", "_kept", "_names", "_scope", "_seen")

    def __init__(self, scope: MutableMapping[str, Any], names: Iterable[str]) -> None:
        self._scope = scope
        self._names = names
        self._seen = 0
        self._form: Form | None = None
        self._kept = bytearray()

    def add(self, chunk: bytes) -> None:
        """One more piece of the body as the app got it."""
        if not self._seen:
            self._form = form_of(headers_of(self._scope).get("content-type", ""), self._names)
        seen, self._seen = self._seen, self._seen + len(chunk)
        if self._form is None:
            self._kept += chunk[: max(0, KEPT - seen)]
        elif seen < SCANNED:
            self._form.feed(chunk[: SCANNED - seen])

    def form(self) -> dict[str, str]:
        """The fields that were asked for, as far as there are such."""
        return self._form.fields() if self._form is not None else {}

    def whole(self) -> bytes:
        """All of the body, b"" where it is longer than what is kept or a form."""
        return bytes(self._kept) if self._seen <= KEPT else b""

    @property
    def lack(self) -> str:
        """Why something may not have been found though it was sent, "" where nothing hid it.

        "body_unread" (the app did not read it), or "body_too_long".
        """
        if not self._seen:
            headers = headers_of(self._scope)
            told = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
            return "body_unread" if told else ""
        if self._form is None:
            return "body_too_long" if self._seen > KEPT else ""
        return "body_too_long" if self._form.too_long or self._seen > SCANNED else ""


class Fields(Private, Struct):
    """What expressions find in one request, an ASGI http scope; answers `Lookup` questions.

    A body that is too long, not read by the app or malformed answers MISSING, never an error:
    `lack` then says why, see BodyTee.lack.
    """

    _scope: MutableMapping[str, Any]
    _headers: Mapping[str, str]
    _tee: BodyTee | None
    #: What was read so far, by root. No cached_property: until Python 3.12 all requests of a
    #: process share its lock, and one parses a form under it.
    _read: dict[str, Any] = {}
    lack: str = ""

    def __call__(self, root: str, names: tuple[str, ...]) -> Any:
        """The value of {root.names}; MISSING when the request has none."""
        if root == "state":
            return _walk(self._scope.get("state", {}), names)
        if root == "header":
            return self._headers.get(".".join(names).lower(), MISSING)
        if root not in self._read:
            self._read[root] = _READERS[root](self)
        found = self._read[root]
        value = _walk(found, names) if root == "json" else found.get(".".join(names), MISSING)
        if value is MISSING and self._tee is not None and root in ("form", "json"):
            self.lack = self._tee.lack
        return value[:FIELD_READ] if type(value) is str and root in ("form", "json") else value

    def _query(self) -> dict[str, str]:
        return _pairs(self._scope.get("query_string", b"")[:URL_READ])

    def _cookie(self) -> dict[str, str]:
        from starlette.requests import cookie_parser

        return cookie_parser(self._headers.get("cookie", ""))

    def _json(self) -> Any:
        is_json = "json" in self._headers.get("content-type", "").lower()
        body = self._tee.whole() if self._tee is not None and is_json else b""
        try:
            return json.loads(body) if body else {}
        except (ValueError, RecursionError):
            return {}

    def _form(self) -> dict[str, str]:
        return self._tee.form() if self._tee is not None else {}


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
