"""Alerting: one process of all looks at the flags each minute and tells what changed, once."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial

import msgspec

from capi_middleware.alerts import rules as alerts
from capi_middleware.alerts.rules import Alert, State
from capi_middleware.config.settings import Config, named_events
from capi_middleware.errors import StoreError
from capi_middleware.events import OF_HOST, STANDARD_EVENTS
from capi_middleware.meta.http import HTTPClient, NoAnswer
from capi_middleware.report.marks import remember
from capi_middleware.report.model import Mark
from capi_middleware.report.read import read_report
from capi_middleware.report.window import last_day
from capi_middleware.shield import Shield, about
from capi_middleware.signing import sign_alert
from capi_middleware.store.store import Store

logger: logging.Logger = logging.getLogger("capi_middleware.alerts")

#: Under which name the store keeps the state.
NAME = "alerts"
#: How often a process asks the store whether there is something to do, in seconds.
CHECK_SECONDS = 15.0
#: Total time for one message in seconds, whatever the server does.
DEADLINE = 10.0
#: At most this much of an answer is read, in bytes.
ANSWER_LIMIT = 4 * 1024
#: How often a change is tried while other processes change the same.
_MOST_TRIES = 20


class Webhook:
    """Posts to one address. `close` ends a message that is under way, from any thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http: HTTPClient | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> str:
        """Send one message; "" when it was taken (2xx), else why not, without any address."""
        self._http = HTTPClient(ANSWER_LIMIT)
        with closing(self._http):
            try:
                answer = self._http.send(
                    "POST", self._url, seconds=DEADLINE, headers=headers, content=body
                )
            except NoAnswer as error:
                return str(error)
        return "" if 200 <= answer.status < 300 else f"http {answer.status}"

    def close(self) -> None:
        """End a message that is under way."""
        if self._http is not None:
            self._http.close()


class Alerting:
    """Evaluates, tells and sends for one process. `clock` gives Unix time in seconds."""

    def __init__(
        self,
        config: Config,
        store: Store,
        shield: Shield,
        is_delivering: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._store = store
        self._shield = shield
        self._is_delivering = is_delivering
        self._clock = clock
        self._webhook: Webhook | None = None

    def check(self) -> None:
        """Do what is due and no other process does. Raises StoreError for a store that fails."""
        try:
            self._evaluate()
        finally:
            self._send()

    def give_up(self) -> None:
        """End a message that is under way, from another thread: it is sent again later."""
        if self._webhook is not None:
            self._webhook.close()

    def _evaluate(self) -> None:
        now = self._clock()
        if self._change(lambda state: alerts.evaluating(state, now)) is None:
            return
        window = last_day(now)
        report = read_report(self._store, self._config, window, delivering=self._is_delivering())
        names = STANDARD_EVENTS | named_events(self._config)
        flags = alerts.told_of(report.flags, report.events, names)
        told: list[Alert] = []
        lost = 0

        def decided(state: State) -> State:
            nonlocal told, lost
            state, changes = alerts.decide(state, flags, now)
            told = [
                alerts.alert_of(change, now, window.start, window.end, self._config.prefix)
                for change in changes
            ]
            state, lost = alerts.queued(state, told if self._config.alert_webhook else [], now)
            return state

        self._change(decided)
        # Kept first: a process that is killed here told too little, never something twice.
        for alert in told:
            self._tell(alert)
        remember(self._store, *[
            Mark(alert.at, "alert", alert.flag.code.replace("_", " "), alert.flag.event_name,
                 alert.flag.pixel_id)
            for alert in told
            if alert.kind != "closed"
        ])  # fmt: skip
        if lost:
            logger.error("%d alerts were given up: the webhook does not take them", lost,
                         extra=about("give_up_alerts", n=lost))  # fmt: skip

    def _tell(self, alert: Alert) -> None:
        flag = alert.flag
        level = logging.ERROR if flag.severity == "critical" else logging.WARNING
        logger.log(
            logging.INFO if alert.kind == "closed" else level,
            "flag %s: %s of %s%s. %s", alert.kind, flag.code, flag.event_name or "the site",
            f" at pixel {flag.pixel_id}" if flag.pixel_id else "",
            f"It was: {flag.explanation}" if alert.kind == "closed" else
            f"{flag.explanation} {flag.fix}",
            extra=about(
                f"flag_{alert.kind}", code=flag.code, severity=flag.severity,
                event_name=flag.event_name, pixel_id=flag.pixel_id, value=flag.value,
                target=flag.target,
            ),
        )  # fmt: skip
        if self._config.on_alert is not None:
            with self._shield.guard(f"{OF_HOST}on_alert"):
                self._config.on_alert(alert)

    def _send(self) -> None:
        url, now = self._config.alert_webhook, self._clock()
        if url is None:
            return
        state = self._change(lambda state: alerts.sending(state, now))
        if state is None:
            return
        self._webhook = Webhook(url)
        half_time = time.monotonic() + alerts.LEASE_SECONDS / 2
        for alert in (waiting.alert for waiting in state.waiting):
            if time.monotonic() > half_time:
                break
            body = msgspec.json.encode(alert)
            signature = sign_alert(self._config.secrets[0], body, self._clock())
            headers = {"X-Capi-Signature": signature, "Content-Type": "application/json"}
            if problem := self._webhook.post(body, headers):
                self._change(lambda state: alerts.failed(state, now))
                logger.warning("the webhook did not take an alert: %s", problem,
                               extra=about("fail_alert", reason=problem))  # fmt: skip
                return
            self._change(partial(alerts.sent, alert_id=alert.id))
        self._change(alerts.released)

    def _change(self, change: Callable[[State], State | None]) -> State | None:
        """Change the state of all processes; None when `change` wants none."""
        for _ in range(_MOST_TRIES):
            body = self._store.kept(NAME)
            state = change(_decoded(body))
            if state is None:
                return None
            if self._store.keep(NAME, msgspec.json.encode(state), instead_of=body):
                return state
        raise StoreError(f"the state of the alerts was changed {_MOST_TRIES} times by others")


def _decoded(body: bytes | None) -> State:
    try:
        return msgspec.json.decode(body, type=State) if body else State()
    except msgspec.DecodeError:
        return State()  # of another version
