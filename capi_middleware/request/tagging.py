"""Tagging: what the tag of a page says of its events, its pixels and its visitor."""

from collections.abc import Mapping, Sequence
from typing import Any

from capi_middleware.events import Event
from capi_middleware.lazily import Part
from capi_middleware.page.tag import consent_fields, page_events, pixel_entries, tag
from capi_middleware.request.admission import Admission
from capi_middleware.request.drafting import Drafting
from capi_middleware.request.issuing import Issuer


class Tagger(Part):
    """One per request. `_mount` is the path that the app is mounted at."""

    _issuer: Issuer
    _mount: str
    _drafting: Drafting
    _admission: Admission

    def tag(
        self, events: Sequence[Event], carried: Sequence[Mapping[str, Any]], nonce: str | None
    ) -> bytes:
        """The tag of a page with its own `events` and those `carried` there from earlier ones."""
        return self._tag(
            nonce,
            pixels=self.pixels(events),
            events=[*page_events(events), *carried],
            consent=self.consent_fields(),
            key=self.key(events),
        )

    def ask(self, nonce: str | None) -> bytes:
        """The tag of a page that others may get, too: its script asks for what is the visitor's."""
        return self._tag(nonce, pixels=self._issuer.pixels, ask=True)

    def _tag(self, nonce: str | None, **more: Any) -> bytes:
        config = self._issuer.config
        return tag(
            prefix=self._mount + config.prefix,
            script_url=config.pixel_script_url,
            mirror=self._issuer.mirror.on,
            nonce=nonce,
            **more,
        )

    def key(self, events: Sequence[Event]) -> list[str]:
        """What shows later that a page is ours: an event_id that it has anyway, or its own."""
        for event in events:
            if event.event_id.startswith("t"):  # minted now, not from a dedupe_key
                return [event.event_name, event.event_id]
        return ["", self._issuer.mint("", None)]

    def consent_fields(self) -> dict[str, Any]:
        """What the pixel script must know of the visitor's consent."""
        return consent_fields(*self._admission.permission)

    def pixels(self, events: Sequence[Event]) -> list[dict[str, Any]]:
        """The pixels of the page; with advanced_matching also what is known of the visitor."""
        config = self._issuer.config
        if not (config.advanced_matching and events):
            return self._issuer.pixels
        matching: dict[str, Any] = {}
        for data in (self._drafting.shared, *(event.user_data for event in events)):
            matching |= data
        return pixel_entries({one.id: one.events for one in config.pixels}, matching)
