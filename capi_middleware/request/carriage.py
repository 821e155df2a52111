"""Carriage: the events that a request brings along, and those that its response sends on."""

from collections.abc import Mapping, Sequence
from typing import Any

from capi_middleware.capture import carrying
from capi_middleware.capture.reading import RequestReader
from capi_middleware.errors import BadBeacon
from capi_middleware.events import Count, Event
from capi_middleware.lazily import Part, lazily
from capi_middleware.page.tag import page_events
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Visit
from capi_middleware.steps import Headers

_COOKIE = f"{carrying.COOKIE}="


class Carriage(Part):
    """One per request; nothing is read before it is asked for."""

    _issuer: Issuer
    _reader: RequestReader
    _visit: Visit
    _taken: bool = False

    @lazily
    def scripted(self) -> bool:
        """Whether a page's script asks and can read a header of the answer."""
        return carrying.is_scripted(self._reader.headers)

    @property
    def shows_page(self) -> bool:
        """Whether a page that is the answer will be shown as one."""
        return not self.scripted or carrying.is_navigation(self._reader.headers)

    @lazily
    def _brought(self) -> tuple[list[dict[str, Any]], bool]:
        if not self.waits:
            return [], False
        for part in self._reader.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == carrying.COOKIE:
                try:
                    return self._issuer.carrier.unpack(value, now=self._issuer.now())
                except BadBeacon:
                    self._issuer.count(Count("beacon", "carried"))
        return [], False

    @property
    def waits(self) -> bool:
        """Whether the request seems to bring events along."""
        return _COOKIE in self._reader.headers.get("cookie", "")

    def take(self, *, for_page: bool = False) -> list[dict[str, Any]]:
        """The events that an earlier redirect sent here; the response must add `cleared`.

        What a navigation left behind is for the page that it leads to (or for the question of
        that page: `for_page`), not for a script that happens to ask meanwhile.
        """
        events, for_script = self._brought
        if not events or (self.scripted and not for_script and not for_page):
            return []
        self._taken = True
        self._issuer.rendered(events)
        # The next page may be a copy from a cache or in another tab: once in this browser.
        return [{**event, "o": 1} for event in events]

    @property
    def cleared(self) -> Headers:
        """A Set-Cookie line once the events were taken."""
        if not self._taken:
            return []
        return [(b"set-cookie", carrying.set_cookie("", secure=self._secure))]

    def send_on(self, events: Sequence[Event], status: int) -> tuple[Headers, list[Event]]:
        """Headers for events that no page carries, and those of them that are on their way.

        A redirect sends them, with what it was brought itself, to the page it leads to; any other
        answer to a script hands them to that script.
        """
        events = [event for event in events if event.send != "server" and event.pixel_ids]
        if 300 <= status < 400 and events:
            brought, for_script = self._brought
            ours = page_events(events)
            known = {event["i"] for event in ours}
            value, n = self._issuer.carrier.pack(
                [*ours, *(event for event in brought if event["i"] not in known)],
                now=self._issuer.now(),
                scripted=self.scripted and (for_script or not brought),
            )
            return [(b"set-cookie", carrying.set_cookie(value, secure=self._secure))], events[:n]
        if 300 <= status < 400 or not self.scripted:
            return [], []
        return self._hand_over(events)

    def _hand_over(self, events: Sequence[Event]) -> tuple[Headers, list[Event]]:
        told: list[Mapping[str, Any]] = [*page_events(events), *self.take()]
        if not told:
            return [], []
        value, n = carrying.as_header(told)
        return [(carrying.HEADER, value), *self.cleared], list(events[:n])

    @property
    def _secure(self) -> bool:
        return self._visit.client.scheme == "https"
