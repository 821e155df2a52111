"""Rounds: what a courier does with what is due: lease it, send it, and settle what came of it.

A lease is for one request, or for the two or three that tell whose fault a refusal is. All that is
found out is in the store after each of them: another courier goes on from there.
"""

import logging
import math
import random
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from capi_middleware.delivery.batches import BATCH, Caution, another, next_batch, oldest
from capi_middleware.delivery.before_send import BeforeSend
from capi_middleware.delivery.retry import LONGEST_DELAY, Pace, asks_to_wait, backoff, rest
from capi_middleware.delivery.telemetry import TOLERANCE, Attempt, measure
from capi_middleware.errors import StoreError
from capi_middleware.events import Count
from capi_middleware.meta.codes import MEANINGS, REFUSALS, Outcome, meaning_of
from capi_middleware.meta.payload import with_time
from capi_middleware.shield import about
from capi_middleware.store.records import CLEARED, Lease, LeasedEvent, Settlement
from capi_middleware.store.store import Store

logger: logging.Logger = logging.getLogger("capi_middleware.delivery")

#: How often the log says that a pixel rests for the same reason, in seconds.
TELL_SECONDS = 900.0
#: After so many answers in a row that may be the request's fault a search for bad events asks again
#: whether it is.
_UNSURE_IN_A_ROW = 6
_SUSPECT, _ATTEMPTS = attrgetter("suspect"), attrgetter("attempts")


class Client(Protocol):
    """What it needs of the Graph API."""

    def send(self, payloads: Sequence[bytes]) -> Outcome:
        """Post a batch."""

    def hear(self) -> Outcome | None:
        """Let Meta's clock be heard; what came in between, None for nothing."""

    def close(self) -> None:
        """Close the connection."""


class Way(NamedTuple):
    """How events of a pixel get to Meta.

    `token` tells its access token from others, see Pause; `surely` is Unix time by another clock
    than the store's, see Store.lease.
    """

    make_client: Callable[[], Client]
    token: str = ""
    before_send: BeforeSend | None = None
    surely: Callable[[], float | None] = lambda: math.inf


class Rounds:
    """Delivers one batch of a pixel after another, on one thread at a time.

    Args:
        lease_seconds: how long it holds events.
        now: seconds of a clock that only goes forward.
        stops: whether it shall end after the request in flight.
    """

    def __init__(
        self,
        store: Store,
        pixel_id: str,
        way: Way,
        *,
        lease_seconds: float,
        now: Callable[[], float],
        stops: Callable[[], bool],
    ) -> None:
        #: How many events it delivered lately.
        self.pace: Pace = Pace()
        self._store = store
        self._pixel_id = pixel_id
        self.go(way)
        self._lease_seconds = lease_seconds
        self._now = now
        self._stops = stops
        #: What `surely` said last; infinite before that.
        self._metas = math.inf
        self._chance = random.Random()  # noqa: S311 - jitter, not a secret
        #: How often the pixel had to rest since it last delivered, in all processes.
        self._failures = 0
        #: The reason to rest that the log told last, and when, by `now`.
        self._told: tuple[str, float] | None = None
        self._caution = Caution()
        #: What was refused just now goes out again at once, in smaller parts.
        self._searches = False
        #: Answers since the last delivery that may be the request's fault.
        self._unsure = 0
        #: The one that is left of those that were refused together, as all others got through.
        self._left_over = 0
        #: What the last refusal of several was.
        self._refusal = ""
        #: They are taken for it: single events are tried first.
        self._doubts = False
        #: When the log told last that much is refused, by `now`.
        self._calmed_at = -math.inf
        #: When it last asked the store for events, by `now`.
        self._began = 0.0
        self.forget()

    def go(self, way: Way) -> None:
        """Send by this way from now on."""
        self._make_client, self._token, self._before_send, self._surely = way

    def forget(self) -> None:
        """Begin without what the parent of a forked process has under way."""
        self._client: Client | None = None
        #: The lease of the batch that is being delivered, its events without an outcome by key, and
        #: those of them that are in the request being answered.
        self._lease_id = ""
        self._held: dict[int, LeasedEvent] = {}
        self._flying: list[LeasedEvent] = []
        #: Outcomes that the store could not take (a full disk): kept, so that nothing that was
        #: delivered goes out again.
        self._unsettled: list[tuple[str, list[Settlement]]] = []

    @property
    def is_unsettled(self) -> bool:
        """Whether the store could not take an outcome yet."""
        return bool(self._unsettled)

    def close(self) -> None:
        """Close the connection to Meta."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def give_back(self) -> None:
        """What has no outcome need not wait for the lease to run out."""
        held = list(self._held)
        flying = [one.key for one in self._flying if one.key in held]
        if flying:
            sent = [Settlement(key, "pending", uncertain=True) for key in flying]
            self._store.settle(self._lease_id, sent)
        if left := [key for key in held if key not in flying]:
            self._store.release(self._lease_id, left)

    def held_up(self) -> float | None:
        """Seconds until it may send: 0.0 unless some process found that it must not.

        None where nobody knows. After a rest one of all couriers tries; the others wait for what
        becomes of that.
        """
        while self._unsettled:
            self._store.settle(*self._unsettled[0])
            self._unsettled.pop(0)
        standing = self._store.rest(self._pixel_id, self._token)
        self._failures = standing.failures if standing is not None else 0
        if standing is None or standing.seconds > 0:
            return standing.seconds if standing is not None else 0.0
        if self._store.next_due(self._pixel_id) != 0.0:
            return self._until_due()
        tries = self._store.try_now(self._pixel_id, self._token, seconds=self._lease_seconds)
        return 0.0 if tries else None

    def deliver(self, began: float) -> float | None:
        """Deliver a batch, as of `began`; seconds until there may be more, None for unknown."""
        self._began = began
        surely = self._surely()
        self._metas = surely or math.inf
        limit = BATCH if self._doubts else self._caution.lease
        lease = self._store.lease(
            self._pixel_id, limit=limit, seconds=self._lease_seconds, surely=surely
        )
        if not lease.events:
            due = self._until_due()
            return self._hear() if due is not None and due <= 0.01 and surely is None else due
        self._lease_id, self._held = lease.lease_id, {one.key: one for one in lease.events}
        self._searches = False
        try:
            self._deliver(lease)
        finally:
            left = bool(self._held)
            if left:
                self.give_back()
                self._held = {}
        more = left or self._searches or len(lease.events) >= limit
        return 0.0 if more else self._until_due()

    def without_way(self) -> float | None:
        """There is no way to Meta: what waits rests, and is given up when it is too old."""
        seconds = self.held_up()
        if seconds != 0.0:
            return seconds
        lease = self._store.lease(self._pixel_id, limit=BATCH, seconds=self._lease_seconds)
        if not lease.events:
            return self._until_due()
        self._store.release(lease.lease_id, [one.key for one in lease.events])
        return self._rest(Outcome("retry", "no_tenant"))

    def _hear(self) -> float:
        """What seems too old is not given up before Meta's clock was heard; seconds until then."""
        problem = self._connected().hear()
        if problem is not None:
            return self._rest(problem)
        self._recovered()
        return 0.0

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _until_due(self) -> float | None:
        due = self._store.next_due(self._pixel_id)
        return None if due is None else max(due, 0.01)

    def _rest(self, outcome: Outcome) -> float:
        """Let the pixel rest in all processes that have the cause in common; for how long."""
        seconds = rest(outcome, self._failures + 1)
        token = self._token if outcome.kind in ("access", "unsure") else ""
        self._store.pause(self._pixel_id, seconds=seconds, reason=outcome.reason, token=token)
        self._store.count([Count("rested", outcome.reason, pixel_id=self._pixel_id)])
        now = self._now()
        if self._told is None or self._told[0] != outcome.reason or now > self._told[1]:
            self._told = outcome.reason, now + TELL_SECONDS
            told = outcome.reason
            if outcome.reason in MEANINGS:
                told = "{}: {}. {}".format(told, *meaning_of(told))
            logger.warning(
                "pixel %s rests for %.0f s: %s", self._pixel_id, seconds, told,
                extra=about("rest", pixel_id=self._pixel_id, reason=outcome.reason,
                            seconds=seconds),
            )  # fmt: skip
        return seconds

    def _recovered(self) -> None:
        """Meta took events: no process has to wait any more."""
        if self._failures:
            self._failures = 0
            self._store.resume(self._pixel_id, self._token)
        if self._told is not None:
            extra = about("resume", pixel_id=self._pixel_id, reason=self._told[0])
            self._told = None
            logger.warning("pixel %s: Meta takes events again", self._pixel_id, extra=extra)

    def _deliver(self, lease: Lease) -> None:
        """Send the next batch of a lease, and find out whose fault it is when Meta refuses it."""
        batch = list(lease.events)
        if len(batch) > 1:
            batch = [oldest(batch)] if self._doubts else next_batch(batch, self._caution)
        if self._before_send is not None and not (batch := self._asked(lease, batch)):
            return
        outcome = self._send(batch)
        if outcome.kind != "unsure":
            self._take(lease, batch, outcome)
        elif len(batch) > 1 and any(map(_SUSPECT, batch)) and self._unsure < _UNSURE_IN_A_ROW:
            self._suspect(lease, batch, outcome)
        else:
            half_time = self._began + self._lease_seconds / 2
            self._try_single_ones(lease, batch, outcome, half_time)

    def _try_single_ones(
        self, lease: Lease, batch: list[LeasedEvent], outcome: Outcome, end: float
    ) -> None:
        """Whose fault is it? Until something gets through, that of all requests."""
        alone, refused = oldest(batch), outcome
        if len(batch) > 1:
            if self._stops():
                return
            refused = self._send([alone])
            if refused.kind != "unsure":
                self._take(lease, [alone], refused)
                if refused.kind == "delivered":
                    self._suspect(lease, batch, outcome)
                return
        if alone.key == self._left_over:
            self._bury(lease, alone, refused)
            return
        other = another(list(self._held.values()), alone, self._chance)
        tried = self._asked(lease, [other]) if other else []
        if not tried:
            self._take(lease, [alone], refused)
        elif self._now() > end or self._stops():
            self._doubts = True  # the lease could run out: the next one begins with single events
        else:
            second = self._send(tried)
            self._take(lease, tried, second)
            if second.kind == "delivered":
                self._bury(lease, alone, refused)

    def _take(self, lease: Lease, batch: Sequence[LeasedEvent], outcome: Outcome) -> None:
        """Do what the outcome of a request asks for."""
        match outcome.kind:
            case "delivered":
                self._unsure, self._doubts = 0, False
                self.pace.add(len(batch), self._began)
                searching = batch[-1].suspect > 0
                self._caution.delivered(len(batch), searching=searching)
                trace = outcome.trace
                self._record(
                    lease, [Settlement(one.key, "delivered", trace=trace) for one in batch]
                )
                self._left_over = 0
                if searching and self._refusal == "unsure":
                    left = [one.key for one in self._held.values() if one.suspect > 0]
                    self._left_over = left[0] if len(left) == 1 else 0
                if self._failures or self._told is not None:
                    self._recovered()
                if outcome.delay is not None:
                    self._rest(outcome)
            case "invalid" if len(batch) > 1:
                self._suspect(lease, batch, outcome)
            case "invalid":
                self._bury(lease, batch[0], outcome)
            case "large":
                self._caution.too_large(batch)
                if len(batch) == 1:
                    self._retry(lease, batch, outcome, 0.0)
                    self._unsure += 1
                    if self._unsure >= _UNSURE_IN_A_ROW:
                        self._rest(outcome)
            case "retry":
                if outcome.late:
                    self._caution.late(batch)
                self._retry(lease, batch, outcome, self._rest(outcome))
            case "throttled" | "access" | "blocked" | "unsure":
                self._doubts = self._doubts or outcome.kind == "unsure"
                self._rest(outcome)

    def _suspect(self, lease: Lease, batch: Sequence[LeasedEvent], outcome: Outcome) -> None:
        """Remember that one of a batch at least is bad: one of its suspects where it has any.

        Of the other suspects nobody knows any more. Fresh ones beside them go out alone next time,
        and become suspects if that is refused, too.
        """
        batch = [one for one in batch if one.key in self._held]
        suspects, marks = {one.key for one in batch if one.suspect > 0}, dict[int, int]()
        held = [one.key for one in self._held.values() if one.suspect > 0]
        old = [one for one in batch if not one.fresh] if outcome.kind == "invalid" else []
        if suspects:
            marks = {key: CLEARED for key in held if key not in suspects}
        elif batch:
            new = old or batch
            marks = {one.key: new[0].key for one in new}
            if not held:
                self._caution.refused(len(batch))
        self._caution.apart = 0 < len(suspects or old) < len(batch)
        self._refusal = outcome.kind
        self._searches = True
        if marks:
            reason, trace = outcome.reason, outcome.trace
            self._record(lease, [
                Settlement(key, "refused", reason, suspect=n, trace=trace)
                for key, n in marks.items()
            ])  # fmt: skip
        self._calm()

    def _bury(self, lease: Lease, event: LeasedEvent, outcome: Outcome) -> None:
        """Meta refuses an event that was alone in its request: of its others nobody knows."""
        self._caution.bad()
        others = [one for one in self._held.values() if one.suspect > 0 and one.key != event.key]
        self._record(
            lease,
            [
                Settlement(event.key, "dead", outcome.reason, trace=outcome.trace),
                *(Settlement(one.key, "refused", suspect=CLEARED) for one in others),
            ],
        )
        self._searches = True
        self._calm()

    def _calm(self) -> None:
        """Ask Meta less often where it refuses much."""
        seconds = self._caution.rest()
        if not seconds:
            return
        self._store.pause(self._pixel_id, seconds=seconds, reason=REFUSALS)
        self._store.count([Count("rested", REFUSALS, pixel_id=self._pixel_id)])
        if self._now() > self._calmed_at + TELL_SECONDS:
            self._calmed_at = self._now()
            logger.warning(
                "pixel %s rests between requests: %s. %s", self._pixel_id, *meaning_of(REFUSALS),
                extra=about("rest", pixel_id=self._pixel_id, reason=REFUSALS, seconds=seconds),
            )  # fmt: skip

    def _asked(self, lease: Lease, batch: list[LeasedEvent]) -> list[LeasedEvent]:
        """Those of a batch that the host does not stop, as they go out."""
        if self._before_send is None:
            return batch
        going, stopped = self._before_send(batch)
        if stopped:
            self._record(lease, [Settlement(key, "stopped", "before_send") for key in stopped])
        return going

    def _send(self, batch: list[LeasedEvent]) -> Outcome:
        outcome = self._post(batch)
        if self._metas == math.inf and outcome.kind in ("invalid", "unsure"):
            self._metas = self._surely() or math.inf  # the answer told the time
            if any(map(self._is_ahead, batch)):
                outcome = self._post(batch)
        self._unsure += outcome.kind == "unsure"
        return outcome

    def _is_ahead(self, event: LeasedEvent) -> bool:
        """Whether an event is of when our clock was ahead of Meta's, which takes no future."""
        return event.event_time > self._metas + TOLERANCE

    def _post(self, batch: list[LeasedEvent]) -> Outcome:
        attempt: Attempt = "first"
        if any(map(_SUSPECT, batch)):
            attempt = "split"
        elif any(map(_ATTEMPTS, batch)):
            attempt = "repeat"
        payloads = [
            with_time(one.payload, int(self._metas)) if self._is_ahead(one) else one.payload
            for one in batch
        ]
        client = self._connected()
        self._flying = batch
        outcome = measure()(lambda: client.send(payloads), self._pixel_id, len(batch), attempt)
        self._flying = []
        return outcome

    def _retry(
        self, lease: Lease, batch: Sequence[LeasedEvent], outcome: Outcome, seconds: float
    ) -> None:
        """What nobody knows the outcome of is sent again, in other company: one may be to blame.

        How often does not matter: Meta's own seven days are the end of it.
        """
        waits, uncertain = asks_to_wait(outcome), outcome.uncertain
        self._record(lease, [
            Settlement(
                event.key, "pending", outcome.reason,
                min(seconds, LONGEST_DELAY) if waits else backoff(event.attempts, self._chance),
                attempted=not waits, uncertain=uncertain, trace=outcome.trace,
            )
            for event in batch
        ])  # fmt: skip

    def _record(self, lease: Lease, settlements: list[Settlement]) -> None:
        for one in settlements:
            self._held.pop(one.key, None)
        try:
            self._store.settle(lease.lease_id, settlements)
        except StoreError:
            self._unsettled.append((lease.lease_id, settlements))
            raise
