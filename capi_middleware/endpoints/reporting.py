"""The private endpoints give one report in several forms; and what all endpoints share."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from capi_middleware.capture.client import Client
from capi_middleware.config.pixels import Tenant, is_key
from capi_middleware.endpoints.access import Access
from capi_middleware.events import OF_HOST
from capi_middleware.page.tag import below
from capi_middleware.private import Private
from capi_middleware.report import html as report
from capi_middleware.report import inspector
from capi_middleware.report.csv import to_csv
from capi_middleware.report.metrics import read_metrics
from capi_middleware.report.read import read_report
from capi_middleware.report.window import WindowError, parse_window
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Waits

T = TypeVar("T")
_READ = frozenset({"GET", "HEAD"})
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
#: How often a browser loads the page again whose first steps are open, in seconds.
_LOOKS_AGAIN = "10"
#: For everything that is not a visitor's: not stored, not indexed, not guessed at, not framed.
PRIVATE = {
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Asked(Private, msgspec.Struct):
    """A request to an endpoint: its ASGI http scope, its headers by name, and its body."""

    scope: MutableMapping[str, Any]
    headers: Mapping[str, str]
    body: bytes
    waits: Waits

    @property
    def query(self) -> str:
        """The query string as it came."""
        query: bytes = self.scope.get("query_string", b"")
        return query.decode("latin-1")


Handler = Callable[[Asked], Awaitable[Response]]
#: By name: the methods that it takes, and who answers.
_SCRIPTED = "; script-src 'nonce-{}'"
Routes = dict[str, tuple[frozenset[str], Handler]]


class Reporting:
    """The report as a page, as data, as a table and as metrics."""

    def __init__(self, issuer: Issuer, is_delivering: Callable[[], bool]) -> None:
        self._issuer = issuer
        self._is_delivering = is_delivering
        self._access = Access(issuer.config, issuer.clock)
        self.routes: Routes = {
            "parity": (_READ | {"POST"}, self._page),
            "parity/help": (_READ, self._help),
            "parity/link": (_READ, self._link),
            "parity.json": (_READ, self._as(report.to_json, "application/json")),
            "parity.csv": (_READ, self._as(to_csv, "text/csv; charset=utf-8")),
            "parity/events": (_READ, self._events),
            "parity/events.json": (_READ, self._events),
            "metrics": (_READ, self._as(str, _METRICS, read_metrics)),
        }

    def _as(
        self, form: Callable[..., str | bytes], media_type: str,
        read: Callable[..., Any] = read_report,
    ) -> Handler:  # fmt: skip
        """An endpoint that answers programs with the `form` of what `read` reads.

        Of the report it may be one `?table=`, see report/tables.py.
        """
        of_report = read is read_report

        async def answer(asked: Asked) -> Response:
            tenant = await self._tenant(asked)
            status = self._refusal(asked, tenant, linked=of_report)
            if status == 404:
                return bare(404)
            if status is not None:
                _, header, told = _REFUSED[status]
                return failed(status, told, header)
            made = await self._read(asked, read, tenant)
            table = dict(parse_qsl(asked.query)).get("table") if of_report else None
            body = form(made, table) if table else form(made)
            return Response(body, 200, PRIVATE, media_type)

        return answer

    async def _page(self, asked: Asked) -> Response:
        tenant = await self._tenant(asked)
        own = tenant.report_token if tenant is not None else None
        if not self._access.served(own):
            return bare(404)
        client, nonce = self._client(asked), secrets.token_urlsafe(16)
        named = f"?tenant={tenant.key}" if tenant is not None else ""
        path = self._path(asked)
        if asked.scope["method"] == "POST":
            given = dict(parse_qsl(asked.body.decode("latin-1"))).get("token", "")
            status = self._access.check(given, client.ip, own)
            if status is not None:
                page = report.login_html(path + named, _REFUSED[status][0], nonce=nonce)
                return _html(page, 403 if status == 401 else status, nonce)
            answer: Response = RedirectResponse(path + named, 303, headers=PRIVATE)
            prefix, secure = path.removesuffix("/parity"), client.scheme == "https"
            self._access.log_in(answer, path=prefix, secure=secure, token=given)
            return answer
        status = self._refusal(asked, tenant, linked=True)
        if status is not None:
            return _html(report.login_html(path + named, nonce=nonce), status, nonce)
        try:
            made = await self._read(asked, read_report, tenant)
        except WindowError as error:
            text = report.failed_html(str(error), path=path, query=asked.query, nonce=nonce)
            return _html(text, 400, nonce)
        text = report.to_html(made, path=path, query=asked.query, nonce=nonce)
        shown = _html(text, 200, nonce, _SCRIPTED.format(nonce))
        if made.checklist:
            shown.headers["refresh"] = _LOOKS_AGAIN
        return shown

    def _refusal(self, asked: Asked, tenant: Tenant | None, *, linked: bool) -> int | None:
        """Why a request may not read; one with a link may, where it is `linked`."""
        own, whose = (tenant.report_token, tenant.key) if tenant else (None, None)
        link = dict(parse_qsl(asked.query)).get("link") if linked else None
        if self._access.is_linked(link, whose, own):
            return None
        return self._access.refusal(asked.headers, self._client(asked).ip, own)

    async def _link(self, asked: Asked) -> Response:
        """A link for others, made by who may read."""
        tenant = await self._tenant(asked)
        own, whose = (tenant.report_token, tenant.key) if tenant else (None, None)
        if not self._access.served(own):
            return bare(404)
        nonce, path = secrets.token_urlsafe(16), self._path(asked)
        status = self._refusal(asked, tenant, linked=False)
        if status is not None:
            return _html(report.login_html(path, nonce=nonce), status, nonce)
        given = dict(parse_qsl(asked.query)).get("for", "")
        days = int(given) if given.isascii() and given.isdecimal() and len(given) < 4 else 7
        link, until = self._access.link(days, whose, own)
        client, kept = self._client(asked), {"tenant": whose} if whose is not None else {}
        address = f"{client.scheme}://{client.host}{path}?{urlencode({**kept, 'link': link})}"
        page = report.link_html(address, until, days, path=path, kept=kept, nonce=nonce)
        return _html(page, 200, nonce)

    async def _events(self, asked: Asked) -> Response:
        """Single events, as a page or as data."""
        tenant = await self._tenant(asked)
        own, named = (tenant.report_token, f"?tenant={tenant.key}") if tenant else (None, "")
        path, nonce = self._path(asked), secrets.token_urlsafe(16)
        as_page = not asked.scope["path"].endswith(".json")
        status = self._access.refusal(asked.headers, self._client(asked).ip, own)
        if status == 404:
            return bare(404)
        if status is not None and as_page:
            return _html(report.login_html(path + named, nonce=nonce), status, nonce)
        if status is not None:
            _, header, told = _REFUSED[status]
            return failed(status, told, header)
        params = dict(parse_qsl(asked.query))
        sought = inspector.parse_sought(params, tenant.key if tenant else "")
        store, config = self._issuer.store, self._issuer.config
        found = await asked.waits.read(lambda: inspector.read_events(store, config, sought))
        if as_page:
            text = inspector.to_html(
                found, sought, names=config.pixel_names, path=path, nonce=nonce
            )
            return _html(text, 200, nonce, _SCRIPTED.format(nonce))
        return Response(msgspec.json.encode(found), 200, PRIVATE, "application/json")

    async def _help(self, asked: Asked) -> Response:
        tenant = await self._tenant(asked)
        own = tenant.report_token if tenant is not None else None
        if not self._access.served(own):
            return bare(404)
        nonce, path = secrets.token_urlsafe(16), self._path(asked)
        status = self._refusal(asked, tenant, linked=True)
        if status is not None:
            return _html(report.login_html(path, nonce=nonce), status, nonce)
        return _html(report.help_html(path, nonce=nonce), 200, nonce)

    def _path(self, asked: Asked) -> str:
        """Where the report is, for a browser."""
        return below(asked.scope.get("root_path", ""), self._issuer.config.prefix) + "/parity"

    async def _tenant(self, asked: Asked) -> Tenant | None:
        """Whose report is asked for: the tenant of the query, else of the request; None for all.

        A tenant that nobody knows has none.
        """
        tenants, rule = self._issuer.tenants, self._issuer.tenant_rule
        if tenants is None:
            return None
        key = dict(parse_qsl(asked.query, keep_blank_values=True)).get("tenant")
        if key is None and rule is not None:
            with self._issuer.shield.guard(OF_HOST + rule.setting):
                key = rule.rule(Request(asked.scope))
        if not is_key(key):
            return None
        whose = str(key)
        found = tenants.known(whose)
        if found is None and tenants.may_ask(whose, self._client(asked).ip):
            found = await asked.waits.ask(lambda: tenants.get(whose))
        return found or Tenant(whose, ())

    def _read(self, asked: Asked, read: Callable[..., T], tenant: Tenant | None) -> Awaitable[T]:
        """Reads the store: may take long, so a door runs it off its loop."""
        window = parse_window(dict(parse_qsl(asked.query)), time.time())
        store, config = self._issuer.store, self._issuer.config
        return asked.waits.read(
            lambda: read(
                store,
                config,
                window,
                delivering=self._is_delivering(),
                tenant=tenant.key if tenant is not None else "",
            )
        )

    def _client(self, asked: Asked) -> Client:
        return self._issuer.client(asked.scope, asked.headers)


#: Why somebody may not read: what a browser shows, a header for a program, and what it is told.
_REFUSED = {
    401: ("This is not the report token.", {"www-authenticate": "Bearer"},
          "found no valid token, expected Authorization: Bearer <report_token>"),
    429: ("Too many wrong tokens: wait a minute.", {"retry-after": "60"},
          "found too many wrong tokens, expected to wait a minute"),
}  # fmt: skip


def bare(status: int, **headers: str) -> Response:
    """An answer without a body."""
    return Response(b"", status, {**PRIVATE, **headers}, "text/plain")


def failed(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    """An `error` for a program."""
    told = msgspec.json.encode({"error": error})
    return Response(told, status, {**PRIVATE, **(headers or {})}, "application/json")


def _html(text: str, status: int, nonce: str, more: str = "") -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
        f"frame-ancestors 'none'; base-uri 'none'{more}"
    )
    return Response(text, status, {**PRIVATE, "content-security-policy": policy}, "text/html")
