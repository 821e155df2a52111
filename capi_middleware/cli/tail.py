"""tail: live events on a terminal, each with the state of both copies."""

import time
from collections import OrderedDict
from collections.abc import Sequence

import click
import msgspec

from capi_middleware.cli.terminal import JSON_LINES, opened, print_json, print_line
from capi_middleware.events import SENT, VAGUE_BROWSER_CAUSES
from capi_middleware.report.window import iso
from capi_middleware.store.records import Known
from capi_middleware.store.store import Store

_NEWEST = 20
_PAGE = 500
#: Keys behind the last one that are looked at again: other processes may have got theirs before us,
#: a thousand for a group commit, and commit after us.
_BEHIND = 5000
#: Events whose copies are still watched, and seconds between two looks.
_WATCHED = 200
_POLL = 1.0


@click.command()
@click.option("--event", help="Only this event name.")
@click.option("--pixel", help="Only this pixel.")
@click.option("--once", is_flag=True, help=f"The newest {_NEWEST}, then end.")
@JSON_LINES
@click.pass_obj
def tail(source: str, event: str | None, pixel: str | None, once: bool, as_json: bool) -> None:
    """Events as they happen, with the state of the server and of the browser copy; until Ctrl-C.

    An event is printed again when one of its copies gets on.
    """
    watch = Watch(event, pixel, as_json)
    with opened(source) as capi:
        watch.begin(capi.store)
        try:
            while not once:
                time.sleep(_POLL)
                watch.look(capi.store)
        except KeyboardInterrupt:
            return


class Watch:
    """What has been printed, and what may still change."""

    def __init__(self, event: str | None, pixel: str | None, as_json: bool) -> None:
        self._event, self._pixel, self._as_json = event, pixel, as_json
        #: Keys from here on belong on the terminal; the last one that was read; and those near it.
        self._first = self._last = 0
        self._read: set[int] = set()
        self._open: OrderedDict[int, Known] = OrderedDict()

    def begin(self, store: Store) -> None:
        """Print the newest events."""
        newest = store.recent(_NEWEST)
        if newest:
            self._first = newest[0].key
        self.show(newest)

    def look(self, store: Store) -> None:
        """Print what is new and what got on."""
        known = store.find([one.event_id for one in self._open.values()])
        self.show([one for one in known if one.key in self._open])
        behind = max(self._first, self._last - _BEHIND)
        after = behind - 1
        while True:
            page = store.recent(_PAGE, after or -1)
            self.show([one for one in page if one.key not in self._read])
            if len(page) < _PAGE:
                break
            after = page[-1].key
        self._read = {key for key in self._read if key >= behind}

    def show(self, events: Sequence[Known]) -> None:
        """Print those that say something new."""
        for one in events:
            self._last = max(self._last, one.key)
            self._read.add(one.key)
            before = self._open.pop(one.key, None)
            if self._event not in (None, one.event_name) or self._pixel not in (None, one.pixel_id):
                continue
            if _may_change(one):
                self._open[one.key] = one
                if len(self._open) > _WATCHED:
                    self._open.popitem(last=False)
            if before is None or (before.server, before.browser) != (one.server, one.browser):
                self._print(one)

    def _print(self, one: Known) -> None:
        if self._as_json:
            print_json(msgspec.structs.asdict(one) | {"event_time": iso(one.event_time)})
            return
        reason = f" ({one.reason})" if one.reason else ""
        print_line(
            f"{iso(int(one.event_time))}  {one.event_name:<16} {one.pixel_id}  "
            f"server {one.server + reason:<12} browser {one.browser:<16} {one.event_id}"
        )


def _may_change(one: Known) -> bool:
    open_server = one.server in ("pending", "leased", "unknown")
    return open_server or (one.browser != SENT and one.browser in VAGUE_BROWSER_CAUSES)
