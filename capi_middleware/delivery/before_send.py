"""Before send: the host's last word on each event, just before the request to Meta."""

import logging
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from capi_middleware.events import OF_HOST, Count, Event
from capi_middleware.meta.custom_data import clean
from capi_middleware.meta.payload import read_event, with_changes
from capi_middleware.meta.user_data import UserData, unknown_keys
from capi_middleware.shield import about
from capi_middleware.store.records import LeasedEvent

logger: logging.Logger = logging.getLogger("capi_middleware.delivery")

#: A callable that fails is logged once in so many seconds: it may fail for every event.
LOG_SECONDS = 60.0


class BeforeSend:
    """Asks `Config.before_send` about the events of one pixel.

    `region` reads phone numbers that the host adds, as Config.default_region does.
    """

    def __init__(
        self,
        asked: Callable[[Event], Event | None],
        pixel_id: str,
        region: str,
        count: Callable[[Sequence[Count]], None],
    ) -> None:
        self._asked = asked
        self._pixel_id = pixel_id
        self._region = region
        self._count = count
        self._told_at: float | None = None

    def __call__(self, events: Sequence[LeasedEvent]) -> tuple[list[LeasedEvent], list[int]]:
        """The events as they go out now, and the keys of those that the host stops."""
        going: list[LeasedEvent] = []
        stopped: list[int] = []
        for event in events:
            try:
                payload = self._payload(event)
            except Exception as error:
                # A traceback or message could carry what is personal: the type alone is told.
                self._failed(type(error).__name__)
                payload = event.payload
            if payload is None:
                stopped.append(event.key)
                self._count([Count("suppressed", "before_send", event.event_name, self._pixel_id)])
            else:
                going.append(replace(event, payload=payload))
        return going, stopped

    def _payload(self, event: LeasedEvent) -> bytes | None:
        made = self._asked(read_event(event.payload, self._pixel_id))
        if made is None:
            return None
        if not isinstance(made, Event):
            raise TypeError("expected an Event or None")
        custom_data, wrong = clean(event.event_name, made.custom_data)
        given = dict(made.user_data)
        unusable = unknown_keys(given)
        for key in unusable:
            del given[key]
        # A digest passes as it is; what is raw is hashed, and never sent.
        user_data, left = UserData(**given).hashed(self._region)
        payload = with_changes(event.payload, int(made.event_time), user_data, custom_data)
        wrong += [f"user_data.{key}" for key in (*unusable, *left)]
        if wrong:
            self._count([Count("left_out", what, event.event_name) for what in wrong])
        return payload

    def _failed(self, kind: str) -> None:
        self._count([Count("error", f"{OF_HOST}before_send: {kind}")])
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= LOG_SECONDS:
            self._told_at = now
            extra = about("swallow", where="before_send", error=kind)
            logger.error("before_send failed (%s); events go as they were", kind, extra=extra)
