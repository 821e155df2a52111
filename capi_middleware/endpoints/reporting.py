"""Reporting: the private endpoints, one report in several forms."""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.responses import RedirectResponse, Response

from capi_middleware.endpoints.access import Access, refused
from capi_middleware.endpoints.answers import PRIVATE, bare
from capi_middleware.report import html as report
from capi_middleware.report.csv import to_csv
from capi_middleware.report.metrics import read_metrics
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window
from capi_middleware.request.issuing import Issuer
from capi_middleware.steps import Steps

#: By name: the methods that it takes, and who answers.
Routes = dict[str, tuple[frozenset[str], Callable[..., Steps[Response]]]]
T = TypeVar("T")
_READ = frozenset({"GET", "HEAD"})


class Reporting:
    """The report as a page, as data, as a table and as metrics."""

    def __init__(self, issuer: Issuer, is_delivering: Callable[[], bool]) -> None:
        self._issuer = issuer
        self._config = issuer.config
        self._is_delivering = is_delivering
        self._access = Access(issuer.config, issuer.now)
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
    ) -> Callable[..., Steps[Response]]:
        """An endpoint that answers programs with the `form` of what `read` reads."""

        def answer(scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
            status = self._access.refusal(headers, self._address(scope, headers))
            if status is not None:
                return refused(status)
            made = yield self._reading(scope, read)
            return Response(form(made), 200, PRIVATE, media_type)

        return answer

    def _page(self, scope: Any, headers: Mapping[str, str], body: bytes) -> Steps[Response]:
        if not self._access.served:
            return bare(404)
        prefix = scope.get("root_path", "").rstrip("/") + self._config.prefix
        path = f"{prefix}/parity"
        nonce = secrets.token_urlsafe(16)
        address = self._address(scope, headers)
        if scope["method"] == "POST":
            given = dict(parse_qsl(body.decode("latin-1"))).get("token", "")
            status = self._access.check(given, address)
            if status is not None:
                wrong = (
                    "This is not the report token."
                    if status == 401
                    else "Too many wrong tokens: wait a minute."
                )
                page = report.login_html(path, wrong, nonce=nonce)
                return _html(page, 403 if status == 401 else 429, nonce)
            answer: Response = RedirectResponse(path, 303, headers=PRIVATE)
            secure = self._issuer.client(scope, headers).scheme == "https"
            self._access.log_in(answer, path=prefix, secure=secure)
            return answer
        status = self._access.refusal(headers, address)
        if status is not None:
            return _html(report.login_html(path, nonce=nonce), status, nonce)
        made = yield self._reading(scope, read_report)
        query = scope.get("query_string", b"").decode("latin-1")
        return _html(report.to_html(made, path=path, query=query, nonce=nonce), 200, nonce)

    def _reading(self, scope: Any, read: Callable[..., T]) -> Callable[[], T]:
        """Reads the store: may take long, so a door runs it off its loop."""
        query = scope.get("query_string", b"").decode("latin-1")
        window = parse_window(dict(parse_qsl(query)), time.time())
        return lambda: read(
            self._issuer.store, self._config, window, delivering=self._is_delivering()
        )

    def _address(self, scope: Any, headers: Mapping[str, str]) -> str | None:
        return self._issuer.client(scope, headers).ip


def _html(text: str, status: int, nonce: str) -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return Response(text, status, {**PRIVATE, "content-security-policy": policy}, "text/html")
