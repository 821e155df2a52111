"""Visit: who a request comes from: client, identity, the visitor and the cookies it gets."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from capi_middleware.capture.client import Client
from capi_middleware.capture.identity import click_of
from capi_middleware.capture.reading import RequestReader
from capi_middleware.lazily import Part, lazily
from capi_middleware.meta.visitor import Visitor
from capi_middleware.page import is_public
from capi_middleware.request.admission import Admission
from capi_middleware.request.issuing import Issuer, RequestIdentity
from capi_middleware.steps import Headers, Steps


class Visit(Part):
    """Everything is read when it is first asked for: most requests never ask."""

    _issuer: Issuer
    _scope: MutableMapping[str, Any]
    _reader: RequestReader
    _admission: Admission
    _visitor: Visitor | None = None
    #: Whether the response that is being made carries cookies().
    sets_cookies: bool = False

    @lazily
    def client(self) -> Client:
        """Where this request comes from, and how the browser calls the site."""
        return self._issuer.client(self._scope, self._reader.headers)

    @lazily
    def identity(self) -> RequestIdentity:
        """fbp, fbc and URLs of this request."""
        return self._issuer.identify(self._scope, self._reader.headers, self.client)

    @property
    def visitor(self) -> Visitor:
        """Who this request comes from.

        A new fbp belongs to a visitor only where its cookie goes out: with the head of a page.
        """
        identity = self.identity
        fbp = identity.fbp
        if identity.new_cookies and not self.sets_cookies and "_fbp" in dict(identity.new_cookies):
            fbp = None
        consent, country, state = self._admission.permission
        kept = self._visitor
        if kept is None or (kept.fbp, kept.consent) != (fbp, consent):
            kept = Visitor(
                fbp=fbp,
                fbc=identity.fbc,
                client_ip_address=self.client.ip,
                client_user_agent=self._reader.headers.get("user-agent"),
                event_source_url=identity.event_source_url,
                referrer_url=identity.referrer_url,
                consent=consent,
                data_processing_options_country=country,
                data_processing_options_state=state,
            )
            self._visitor = kept
        return kept

    def cookies(self, theirs: Sequence[tuple[bytes, bytes]] = ()) -> Headers:
        """Set-Cookie lines of what the browser does not have and `theirs` (headers) do not set."""
        if not self.identity.new_cookies:
            return []
        values = [value.lstrip() for name, value in theirs if name.lower() == b"set-cookie"]
        return [
            (b"set-cookie", cookie)
            for name, cookie in self.identity.new_cookies
            if not any(value.startswith(name.encode() + b"=") for value in values)
        ]

    def keep_click(self, headers: Headers) -> Steps[Headers]:
        """`headers` of a redirect, with _fbc where a click on an ad lands on it.

        The next page does not know of the click.
        """
        query = self._scope["query_string"].decode("latin-1")
        if not click_of(query) or is_public(headers):
            return headers
        if self._admission.noise is None:
            yield from self._admission.decide()
        if self._admission.refusal is not None:
            return headers
        return headers + [one for one in self.cookies(headers) if one[1].startswith(b"_fbc=")]
