"""The private endpoints give one report in several forms."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from msgspec import Struct
from starlette.responses import RedirectResponse, Response

from capi_middleware.capture.client import Client
from capi_middleware.endpoints.access import Access, refused
from capi_middleware.endpoints.answers import PRIVATE, bare
from capi_middleware.private import Private
from capi_middleware.report import html as report
from capi_middleware.report.csv import to_csv
from capi_middleware.report.metrics import read_metrics
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Waits

T = TypeVar("T")
_READ = frozenset({"GET", "HEAD"})


class Asked(Private, Struct):
    """A request to an endpoint: its ASGI http scope, its headers by name, and its body."""

    scope: MutableMapping[str, Any]
    headers: Mapping[str, str]
    body: bytes
    waits: Waits


Handler = Callable[[Asked], Awaitable[Response]]
#: By name: the methods that it takes, and who answers.
Routes = dict[str, tuple[frozenset[str], Handler]]


class Reporting:
    """The report as a page, as data, as a table and as metrics."""

    def __init__(self, issuer: Issuer, is_delivering: Callable[[], bool]) -> None:
        self._issuer = issuer
        self._config = issuer.config
        self._is_delivering = is_delivering
        self._access = Access(issuer.config, issuer.clock)
        self.routes: Routes = {
            "parity": (_READ | {"POST"}, self._page),
            "parity.json": (_READ, self._as(report.to_json, "application/json")),
            "parity.csv": (_READ, self._as(to_csv, "text/csv; charset=utf-8")),
            "metrics": (
                _READ,
                self._as(str, "text/plain; version=0.0.4; charset=utf-8", read_metrics),
            ),
        }

    def _as(
        self,
        form: Callable[[Any], str | bytes],
        media_type: str,
        read: Callable[..., Any] = read_report,
    ) -> Handler:
        """An endpoint that answers programs with the `form` of what `read` reads."""

        async def answer(asked: Asked) -> Response:
            status = self._access.refusal(asked.headers, self._client(asked).ip)
            if status is not None:
                return refused(status)
            made = await asked.waits.read(self._reading(asked.scope, read))
            return Response(form(made), 200, PRIVATE, media_type)

        return answer

    async def _page(self, asked: Asked) -> Response:
        if not self._access.served:
            return bare(404)
        scope, client = asked.scope, self._client(asked)
        prefix = scope.get("root_path", "").rstrip("/") + self._config.prefix
        path = f"{prefix}/parity"
        nonce = secrets.token_urlsafe(16)
        if scope["method"] == "POST":
            given = dict(parse_qsl(asked.body.decode("latin-1"))).get("token", "")
            status = self._access.check(given, client.ip)
            if status is not None:
                wrong = (
                    "This is not the report token."
                    if status == 401
                    else "Too many wrong tokens: wait a minute."
                )
                page = report.login_html(path, wrong, nonce=nonce)
                return _html(page, 403 if status == 401 else 429, nonce)
            answer: Response = RedirectResponse(path, 303, headers=PRIVATE)
            self._access.log_in(answer, path=prefix, secure=client.scheme == "https")
            return answer
        status = self._access.refusal(asked.headers, client.ip)
        if status is not None:
            return _html(report.login_html(path, nonce=nonce), status, nonce)
        made = await asked.waits.read(self._reading(scope, read_report))
        query = scope.get("query_string", b"").decode("latin-1")
        return _html(report.to_html(made, path=path, query=query, nonce=nonce), 200, nonce)

    def _reading(self, scope: Mapping[str, Any], read: Callable[..., T]) -> Callable[[], T]:
        """Reads the store: may take long, so a door runs it off its loop."""
        query = scope.get("query_string", b"").decode("latin-1")
        window = parse_window(dict(parse_qsl(query)), time.time())
        return lambda: read(
            self._issuer.store, self._config, window, delivering=self._is_delivering()
        )

    def _client(self, asked: Asked) -> Client:
        return self._issuer.client(asked.scope, asked.headers)


def _html(text: str, status: int, nonce: str) -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return Response(text, status, {**PRIVATE, "content-security-policy": policy}, "text/html")
