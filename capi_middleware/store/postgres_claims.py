"""Claims in PostgreSQL: what is due is leased with one statement, none twice."""

from operator import itemgetter
from typing import Any

from capi_middleware.store import postgres_statements as sql
from capi_middleware.store.postgres_link import Transaction
from capi_middleware.store.protocol import (
    DEDUPE_WINDOW,
    LONGEST_LEASE,
    LONGEST_WAIT,
    OLDEST_EVENT,
    LeasedEvent,
)

#: How often the claims of a backlog look for leases that ran out, in seconds: all living leases of
#: the pixel have to be read for that.
RELEASE_SECONDS = 1.0


class Claims:
    """The claims of one process."""

    def __init__(self) -> None:
        #: When leases of each pixel were last released, in Unix seconds.
        self._released: dict[str, float] = {}

    def claim(
        self, db: Transaction, pixel_id: str, lease_id: str, *, limit: int, seconds: float
    ) -> tuple[list[LeasedEvent], bool]:
        """Lease up to `limit` events, those due longest first; whether some were too old for it."""
        of_pixel = {
            "pixel_id": pixel_id,
            "lease_id": lease_id,
            "now": db.now,
            "until": db.now + seconds,
            "longest": LONGEST_LEASE,
            "wait": LONGEST_WAIT,
            "limit": limit,
            "oldest": db.now - OLDEST_EVENT,
            "dedupe": db.now - DEDUPE_WINDOW,
        }
        lately = abs(db.now - self._released.get(pixel_id, 0.0)) < RELEASE_SECONDS
        if not lately:
            self._release(db, of_pixel)
        claimed = db.execute(sql.CLAIM, of_pixel).fetchall()
        if lately and len(claimed) < limit:
            self._release(db, of_pixel)
            of_pixel["limit"] = limit - len(claimed)
            claimed += db.execute(sql.CLAIM, of_pixel).fetchall()
        claimed.sort(key=itemgetter(0, 1))
        events = [LeasedEvent(*columns) for _, *columns in claimed if columns[4] is not None]
        return events, len(events) < len(claimed)

    def _release(self, db: Transaction, of_pixel: dict[str, Any]) -> None:
        db.execute(sql.RELEASE, of_pixel)
        db.execute(sql.HURRY, of_pixel)
        self._released[of_pixel["pixel_id"]] = db.now
