"""tail: live events on a terminal, each with the state of both copies."""

import time
from collections.abc import Sequence

import click
import msgspec

from capi_middleware.cli.terminal import JSON_LINES, opened, print_json, print_parts
from capi_middleware.report.window import iso
from capi_middleware.store.records import Known
from capi_middleware.store.store import Store

_NEWEST = 20
_PAGE = 500
#: Keys behind the last one that are looked at again: their copies may get on; and other processes
#: may have got theirs before us, a thousand for a group commit, and commit after us.
_BEHIND = 5000
#: Seconds between two looks.
_POLL = 1.0


@click.command(short_help="Events as they happen, with the state of both copies.")
@click.option("--event", help="Only this event name.")
@click.option("--pixel", help="Only this pixel.")
@click.option("--once", is_flag=True, help=f"The newest {_NEWEST}, then end.")
@JSON_LINES
@click.pass_obj
def tail(source: str, event: str | None, pixel: str | None, once: bool, as_json: bool) -> None:
    """Events as they happen, with the state of the server and of the browser copy; until Ctrl-C.

    An event is printed again when one of its copies gets on.
    """
    with opened(source) as capi:
        # Each part of a store has keys in an order of their own.
        watches = [(Watch(event, pixel, as_json), part) for part in capi.store.parts]
        for watch, part in watches:
            watch.begin(part)
        try:
            while not once:
                time.sleep(_POLL)
                for watch, part in watches:
                    watch.look(part)
        except KeyboardInterrupt:
            return


class Watch:
    """Prints rows that are new, and those whose copies have got on since."""

    def __init__(self, event: str | None, pixel: str | None, as_json: bool) -> None:
        self._event, self._pixel, self._as_json = event, pixel, as_json
        #: Keys from here on belong on the terminal.
        self._first = 0
        #: The states of both copies by key, of the rows that are looked at again.
        self._seen: dict[int, tuple[str, str]] = {}

    def begin(self, store: Store) -> None:
        """Print the newest events."""
        newest = store.recent(_NEWEST)
        self._first = newest[0].key if newest else 0
        self._show(newest)

    def look(self, store: Store) -> None:
        """Print what is new and what got on."""
        behind = max(self._first, max(self._seen, default=0) - _BEHIND)
        after = behind - 1
        while True:
            page = store.recent(_PAGE, after or -1)
            self._show(page)
            if len(page) < _PAGE:
                break
            after = page[-1].key
        self._seen = {key: states for key, states in self._seen.items() if key >= behind}

    def _show(self, events: Sequence[Known]) -> None:
        for one in events:
            before, states = self._seen.get(one.key), (one.server, one.browser)
            self._seen[one.key] = states
            wanted = self._event in (None, one.event_name) and self._pixel in (None, one.pixel_id)
            if states == before or not wanted:
                continue
            if self._as_json:
                print_json(msgspec.structs.asdict(one) | {"event_time": iso(one.event_time)})
                continue
            server = f"{one.server} ({one.reason})" if one.reason else one.server
            print_parts(
                f"{iso(int(one.event_time))}  {one.event_name:<16} {one.pixel_id}",
                f"server {server:<12} browser {one.browser:<16} {one.event_id}",
            )
