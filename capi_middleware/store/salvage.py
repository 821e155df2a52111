"""Salvage: what can still be read of a damaged SQLite file goes into the one in its place.

Row by row, in small transactions that also keep how far it is: whoever is killed meanwhile, or does
the same beside, leaves nothing out and takes nothing twice. What waits comes first, then dead
letters, orders, all other rows, sums and counters. What cannot be read is counted.
"""

import logging
import sqlite3
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import quote

import msgspec

from capi_middleware.errors import StoreError
from capi_middleware.events import ServerState
from capi_middleware.shield import about
from capi_middleware.store import rollups
from capi_middleware.store.rollups import DAY, HOUR, QUARTER, SHARED, Facet, Key, oldest_hour
from capi_middleware.store.store import Transaction, schema
from capi_middleware.store.writer import LockedError

logger: logging.Logger = logging.getLogger("capi_middleware.store")

#: Keys that are looked at together, and about how many rows one transaction takes over.
STEP = 100
#: Who had the file open when it was moved may still be ending a transaction, in seconds.
LAST_WORDS = 1.0
#: Pause before a store that is locked or full is asked again, in seconds.
_PAUSE = 0.5

_EVENT = (
    "event_id, event_name, pixel_id, event_time, created_at, server, reason, attempts, due_at, "
    "delivered_at, browser, browser_at, match_keys, uncertain, route, page, segment, digest, "
    "browser_digest, uses, currency, amount, trace"
)
_FIELDS = _EVENT.split(", ")
_MAY_BE_NULL = {_FIELDS.index("delivered_at"), _FIELDS.index("browser_at")}
_SERVER, _AMOUNT = _FIELDS.index("server"), _FIELDS.index("amount")
_STATE = ", ".join(SHARED)
_SENT = f"SELECT key, payload, {_EVENT}, {_STATE} FROM payloads CROSS JOIN events USING (key)"  # noqa: S608 - our own words


class _Walk(NamedTuple):
    """What is read along a column of whole numbers, so `many` of them together."""

    into: str
    read: str
    column: str
    many: int = STEP


#: Hashes of fewer than ten thousand millions of orders are further apart.
_GAP, _GREATEST = 2**30, 2**63 - 1
_SETTLED = frozenset(get_args(ServerState)) - {"pending"}
#: A key, or a page, that no file reaches.
_LAST = 2**62
_ALL = "SELECT key FROM events INDEXED BY sqlite_autoindex_events_1"
_WAITING = "SELECT key FROM events INDEXED BY events_waiting WHERE server = 'pending'"
_KEYS = _Walk(
    "", "SELECT key, facet, value, pixel_id, event_name, server, browser FROM rollup_keys "
    "WHERE true", "key",
)  # fmt: skip
_WALKS = (
    _Walk("events", f"{_SENT} WHERE server = 'pending'", "payloads.key"),
    _Walk("events", f"{_SENT} WHERE server = 'dead'", "payloads.key"),
    _Walk("orders", "SELECT key, at FROM orders WHERE key > ? ORDER BY key LIMIT ?", "", 1000),
    _Walk("events", f"SELECT key, NULL, {_EVENT}, {_STATE} FROM events "  # noqa: S608
          "WHERE server NOT IN ('pending', 'dead')", "key"),
    # Of what could not be read: pages that nothing leads to any more.
    _Walk("leaves", "", "page", 500),
    # What waits is counted when it comes in: its sums and changes stay behind.
    _Walk("changes", f"SELECT key, {_STATE}, n, 0, amount FROM changes WHERE server <> 'pending'",  # noqa: S608
          "key"),
    *[
        _Walk("sums", f"SELECT start, span, key, n FROM rollups WHERE facet = '{facet}' "  # noqa: S608
              f"AND span = {span}", "start", 1)
        for facet in ("match_keys", "seconds", "differs", *get_args(Facet))
        for span in (HOUR, QUARTER, DAY)
    ],
    _Walk("counts", "SELECT hour, hour, kind, reason, event_name, pixel_id, n FROM counts "
          "WHERE true", "hour", 1),
)  # fmt: skip


_LEAVES = [walk.into for walk in _WALKS].index("leaves")


class _Progress(msgspec.Struct):
    """How far it is: the walk, and the last place of it that is done.

    `unread` are the keys of events, [first, last], of which something could not be read; `sums` is
    how many of all else.
    """

    walk: int = 0
    after: int = -1
    saved: int = 0
    unread: list[tuple[int, int]] = []
    sums: int = 0
    done: bool = False


class Salvage:
    """Takes over what the damaged file `old` holds, which nobody uses any more.

    `transaction` gives a writing one of the store in its place.
    """

    def __init__(
        self, old: Path, transaction: Callable[[], AbstractContextManager[Transaction]]
    ) -> None:
        self.old: Path = old
        self._transaction = transaction
        self._name = f"salvage {old.name}"
        self._keys = dict[int, Key]()
        self._summed = 0
        self._ends = {"page": _LAST}
        #: Keys of all rows, and of those that wait, by the indexes; None where these are damaged.
        self._all: frozenset[int] | None = None
        self._waiting: frozenset[int] | None = None
        self._leaves: Leaves | None = None

    def run(self, stop: threading.Event) -> None:
        """Go on until all is taken over, or it is asked to stop."""
        stop.wait(LAST_WORDS)
        while not stop.is_set():
            try:
                with self._transaction() as db:
                    progress = self._kept(db)
                if not progress.done:
                    with closing(sqlite3.connect(_uri(self.old), uri=True)) as old:
                        self._walk(old, self._look(old, progress), stop)
                return
            except LockedError:
                stop.wait(_PAUSE)
            except (sqlite3.Error, OSError, StoreError) as error:
                logger.critical(
                    "no more of %s can be saved: %s", self.old, error,
                    extra=about("store_not_salvaged"),
                )  # fmt: skip
                return
            finally:
                if self._leaves is not None:
                    self._leaves.close()
                    self._leaves = None

    def _walk(self, old: sqlite3.Connection, progress: _Progress, stop: threading.Event) -> None:
        while not progress.done and not stop.is_set():
            start = time.monotonic()
            progress = self._step(old, progress)
            stop.wait(time.monotonic() - start)  # others have the store for as long as this had it

    def _look(self, old: sqlite3.Connection, progress: _Progress) -> _Progress:
        """What all steps need: where the tables end, what is summed, the keys of the sums."""
        try:
            old.execute("PRAGMA writable_schema = ON")  # reads also what was cut off
            old.execute("PRAGMA cell_size_check = ON")
            old.execute("SELECT key FROM summed").fetchall()
        except sqlite3.Error:  # no table can be found
            if progress.walk < _LEAVES:
                return msgspec.structs.replace(progress, walk=_LEAVES, unread=[(0, _LAST)])
            return progress
        last = max(
            _number(old, f"SELECT MAX(key) FROM {one}")  # noqa: S608
            for one in ("events", "payloads", "leases", "changes", "rollup_keys", "summed")
        )
        # Where the end of the table is damaged an index tells how far it went.
        with suppress(sqlite3.Error):
            for (key,) in old.execute(_ALL):
                last = max(last, key)
        hour = max(
            int(time.time()),
            _number(old, "SELECT MAX(event_time) FROM events"),
            _number(old, "SELECT MAX(hour) FROM counts") * 3600,
        )
        hour //= 3600
        self._ends |= {"key": last, "payloads.key": last, "start": hour, "hour": hour}
        self._summed = _number(old, "SELECT key FROM summed") or last
        at: int | None = -1
        while at is not None:
            rows, at, _ = _read(old, _KEYS, at, last)
            self._keys.update({key: Key(*columns) for key, *columns in rows})
        return progress

    def _kept(self, db: Transaction) -> _Progress:
        kept = db.read("kept", name=self._name)
        return msgspec.json.decode(kept[0][0], type=_Progress) if kept else _Progress()

    def _step(self, old: sqlite3.Connection, before: _Progress) -> _Progress:
        """One transaction more; where somebody else was faster, what is kept of theirs."""
        walk, rows, unread = _WALKS[before.walk], list[Any](), list[int]()
        at: int | None = before.after
        while at is not None and len(rows) < STEP:
            if walk.into == "leaves":
                some, at = self._of_leaves(old, before.unread, at)
                bad: list[int] = []
            elif walk.into == "orders":
                some, at, bad = _read_sparse(old, walk, at)
            else:
                some, at, bad = _read(old, walk, at, self._ends.get(walk.column, -1))
            rows += some
            unread += bad
        now = msgspec.structs.replace(before, after=-1 if at is None else at)
        now.walk += at is None
        if walk.into == "events":
            unread += [one[0] for one in rows if not _is_sound(one)]
            rows = [one for one in rows if _is_sound(one)]
            now.unread = _without(_joined(before.unread, unread), [one[0] for one in rows])
        elif walk.into == "leaves":
            now.unread = _without(before.unread, [one[0] for one in rows])
        else:
            now.sums += len(unread)
        now.saved += len(rows) if walk.into in ("events", "leaves") else 0
        now.done = now.walk == len(_WALKS)
        lost = self._lost(old, now.unread) if now.done else Counter[tuple[str, ...]]()
        with self._transaction() as db:
            if self._kept(db) not in (before, _Progress()):
                return self._kept(db)
            now.sums += self._into(walk.into, db, rows)
            if now.done:
                self._finish(db, old, now, lost)
            body = msgspec.json.encode(now)
            if not db.run("keep", name=self._name, body=body):
                db.run("keep_instead", name=self._name, body=body,
                       instead_of=msgspec.json.encode(before))  # fmt: skip
        if now.done:
            self._tell(now, lost)
        return now

    def _of_leaves(
        self, old: sqlite3.Connection, unread: Sequence[tuple[int, int]], after: int
    ) -> tuple[list[Any], int | None]:
        """Rows that could not be read, of the next pages; where to go on."""
        if not unread or not hasattr(old, "serialize"):  # a SQLite that cannot hold one in memory
            return [], None
        if self._leaves is None:
            self._leaves = Leaves(self.old, unread)
            self._all, self._waiting = _keys(old, _ALL, unread), _keys(old, _WAITING, unread)
        found, at = self._leaves.events(after)
        # A page that is free may still hold what a row was before, or a row that is no more.
        return [
            one for one in found
            if (self._all is None or one[0] in self._all)
            and (self._waiting is None
                 or (one[0] in self._waiting) == (one[2 + _SERVER] == "pending"))
        ], at  # fmt: skip

    def _into(self, table: str, db: Transaction, rows: Sequence[Any]) -> int:
        """Store them; how many could not be."""
        if table in ("events", "leaves"):
            width = 2 + len(_FIELDS)
            db.many("rescue", [one[2:width] for one in rows])
            db.many("rescue_payloads", [(*one[2:5], one[1]) for one in rows if one[1] is not None])
            # They are new here, and counted in the sums that come after them.
            summed = [
                (*one[width:], -1, 0, -one[2 + _AMOUNT]) for one in rows
                if one[0] <= self._summed and one[2 + _SERVER] != "pending"
            ]  # fmt: skip
            db.many("rescue_changes", summed)
        elif table == "changes":
            db.many("rescue_changes", [one[1:] for one in rows])
        elif table == "counts":
            db.many("count", [one[1:] for one in rows])
        elif table == "orders":
            db.many("remember", rows)
        else:
            known: rollups.Sums = defaultdict(dict)
            for start, span, key, n in rows:
                if key in self._keys and self._keys[key].server != "pending":
                    known[span, start][self._keys[key]] = n
            rollups.add(db, known)
            return sum(key not in self._keys for _, _, key, _ in rows)
        return 0

    def _finish(
        self, db: Transaction, old: sqlite3.Connection, now: _Progress,
        lost: Counter[tuple[str, ...]],
    ) -> None:  # fmt: skip
        with suppress(sqlite3.Error):
            for name, body in old.execute("SELECT name, body FROM kept"):
                db.run("keep", name=name, body=body)
        hour = int(db.now // 3600)
        counts = [
            ("dropped", "damaged", *place, n) if server == "pending"
            else ("damaged", "settled", *place, n)
            for (server, *place), n in lost.items()
        ]  # fmt: skip
        counts += [("damaged", "saved", "", "", now.saved), ("damaged", "sums", "", "", now.sums)]
        if now.unread and now.unread[-1][1] == _LAST:
            counts.append(("damaged", "unknown", "", "", 1))
        db.many("count", sorted((hour, *one) for one in counts if one[-1] or one[1] == "saved"))

    def _tell(self, now: _Progress, lost: Counter[tuple[str, ...]]) -> None:
        waiting = sum(n for (server, *_), n in lost.items() if server == "pending")
        settled = lost.total() - waiting
        logger.critical(
            "%s events of %s are saved; %s that waited for delivery could not be read, nor %s "
            "others, nor %s sums", now.saved, self.old, waiting, settled, now.sums,
            extra=about("store_salvaged", saved=now.saved, waiting=waiting, settled=settled,
                        sums=now.sums),
        )  # fmt: skip

    def _lost(
        self, db: sqlite3.Connection, unread: Sequence[tuple[int, int]]
    ) -> Counter[tuple[str, ...]]:
        """How many events are lost: ("pending" or another, event_name, pixel_id), "" if unknown.

        Indexes know what a table can not tell any more; where they are damaged as well these are
        the most that it may have been.
        """
        lost, candidates = Counter[tuple[str, ...]](), set[int]()
        if unread and unread[-1][1] == _LAST:
            return lost  # nobody knows
        for key in _each(unread):
            try:
                row = db.execute(
                    "SELECT server, event_name, pixel_id FROM events WHERE key = ?", (key,)
                ).fetchone()
            except sqlite3.Error:
                candidates.add(key)
            else:
                if row and row[0] in ("pending", "dead"):  # its payload is lost
                    lost[row] += 1
        names = {key: ("", "") for key in candidates if self._all is None or key in self._all}
        with suppress(sqlite3.Error):
            for key, *place in db.execute(_ALL.replace("key", "key, event_name, pixel_id", 1)):
                if key in names:
                    names[key] = place[0], place[1]
        for key, place in names.items():
            waits = self._waiting is None or key in self._waiting
            lost["pending" if waits else "", *place] += 1
        return lost


class Leaves:
    """The pages of a file that hold rows of a table, read without the tree that leads to them.

    Each is put into an empty database, as all that its table has. Only rows whose keys are in
    `wanted` are looked at.
    """

    def __init__(self, path: Path, wanted: Sequence[tuple[int, int]]) -> None:
        self._wanted = wanted
        self._file = path.open("rb")
        header = self._file.read(18)
        size = int.from_bytes(header[16:18], "big")
        self._size = size if header.startswith(b"SQLite format 3") and size >= 512 else 4096
        self._pages = path.stat().st_size // self._size
        wal = Path(f"{path}-wal")
        self._wal = wal.open("rb") if wal.exists() else None
        self._frames = max(0, wal.stat().st_size - 32) // (24 + self._size) if self._wal else 0
        self._db = sqlite3.connect(":memory:")
        self._db.execute(f"PRAGMA page_size = {self._size}")
        for statement in schema("sqlite.sql"):
            if "CREATE TABLE events" in statement or "CREATE TABLE payloads" in statement:
                self._db.execute(statement)
        roots = self._db.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'")
        self._roots: dict[str, int] = dict(roots.fetchall())
        self._empty = self._db.serialize()
        #: On which page the payload of a row is.
        self._payloads = dict[int, int]()
        #: Rows of which a page says that they do not wait any more.
        self._settled = set[int]()
        for number in range(self._pages + self._frames):
            for key, payload in self._rows("payloads", "key, payload", number):
                if isinstance(payload, bytes):
                    self._payloads[key] = number
            for one in self._rows("events", "key, server", number):
                if one[1] in _SETTLED:
                    self._settled.add(one[0])

    def close(self) -> None:
        """Nothing is read any more."""
        self._db.close()
        self._file.close()
        if self._wal is not None:
            self._wal.close()

    def events(self, after: int) -> tuple[list[Any], int | None]:
        """Rows of the next page that has some, as _Walk reads them; where to go on."""
        number = after + 1
        while number < self._pages + self._frames:
            found = list[Any]()
            for key, _, *columns in self._rows("events", f"key, NULL, {_EVENT}, {_STATE}", number):
                payload = self._payload(key) if columns[_SERVER] in ("pending", "dead") else None
                one = (key, payload, *columns)
                if not _is_sound(one) or (columns[_SERVER] == "pending" and key in self._settled):
                    continue
                if payload is not None or columns[_SERVER] not in ("pending", "dead"):
                    found.append(one)
            if found:
                return found, number
            number += 1
        return [], None

    def _payload(self, key: int) -> bytes | None:
        number = self._payloads.get(key)
        if number is not None:
            for other, payload in self._rows("payloads", "key, payload", number):
                if other == key:
                    return bytes(payload)
        return None

    def _rows(self, table: str, columns: str, number: int) -> list[Any]:
        """All that can be read; no statement may be under way when another page is put in."""
        page, rows = self._page(number), list[Any]()
        if page[:1] != b"\x0d":
            return rows
        at = (self._roots[table] - 1) * self._size
        self._db.deserialize(self._empty[:at] + page + self._empty[at + self._size :])
        self._db.execute("PRAGMA cell_size_check = ON")
        with (
            closing(self._db.execute(f"SELECT {columns} FROM {table} NOT INDEXED")) as found,  # noqa: S608
            suppress(sqlite3.Error),  # a page of another table, or with a hole
        ):
            rows.extend(one for one in found if _within(self._wanted, one[0]))
        return rows

    def _page(self, number: int) -> bytes:
        if number < self._pages:
            self._file.seek(number * self._size)
            return self._file.read(self._size)
        assert self._wal is not None
        self._wal.seek(32 + (number - self._pages) * (24 + self._size) + 24)
        return self._wal.read(self._size)


def _uri(path: Path) -> str:
    """To read alone: nothing in the file, or in its -wal, is changed."""
    return f"file:{quote(str(path))}?mode=ro"


def _keys(
    db: sqlite3.Connection, query: str, ranges: Sequence[tuple[int, int]]
) -> frozenset[int] | None:
    """The keys within `ranges` that an index has; None where it is damaged."""
    with suppress(sqlite3.Error):
        found = (key for (key,) in db.execute(query))
        return frozenset(key for key in found if _within(ranges, key))
    return None


def _number(db: sqlite3.Connection, query: str) -> int:
    with suppress(sqlite3.Error):
        found = db.execute(query).fetchone()
        return int(found[0] or 0) if found else 0
    return 0


def _read(
    db: sqlite3.Connection, walk: _Walk, after: int, end: int
) -> tuple[list[Any], int | None, list[int]]:
    """What stands at the next places, where to go on (None at the end), what cannot be read."""
    if after >= end:
        return [], None, []
    last, query = after + walk.many, f"{walk.read} AND {walk.column}"
    try:
        rows = db.execute(f"{query} BETWEEN ? AND ?", (after + 1, last)).fetchall()
        if rows:
            return rows, last, []
        following = db.execute(f"{query} > ? ORDER BY {walk.column} LIMIT 1", (last,)).fetchone()
        return [], following[0] - 1 if following else None, []
    except sqlite3.Error:
        if walk.many == 1:  # hours: sums are kept for so many
            last = max(last, min(end, oldest_hour(time.time())) - 1)
        found, unread = list[Any](), list[int]()
        # One by one, and by "=", which looks at no other page than its own.
        for at in range(after + 1, min(after + walk.many, end) + 1):
            try:
                found += db.execute(f"{query} = ?", (at,)).fetchall()
            except sqlite3.Error:
                unread.append(at)
        return found, last, unread


def _read_sparse(
    db: sqlite3.Connection, walk: _Walk, after: int
) -> tuple[list[Any], int | None, list[int]]:
    """The same of keys that are hashes, of which few of all that there may be are there."""
    rows = list[Any]()
    try:
        for row in db.execute(walk.read, (after, walk.many)):
            rows.append(row)
    except sqlite3.Error:
        if rows:
            return rows, rows[-1][0], []
    else:
        return rows, rows[-1][0] if len(rows) == walk.many else None, []
    if one := _after(db, walk, after):  # the driver reads a row ahead
        return one, one[-1][0], []
    # Beyond the damaged page: at twice the distance each time, then as near as can be.
    damaged, sound = after, after + _GAP
    while _after(db, walk, sound) is None:
        damaged, sound = sound, sound + 2 * (sound - after)
        if sound > _GREATEST:
            return [], None, [after]
    while sound - damaged > _GAP:
        middle = (damaged + sound) // 2
        if _after(db, walk, middle) is None:
            damaged = middle
        else:
            sound = middle
    return [], sound, [after]


def _after(db: sqlite3.Connection, walk: _Walk, key: int) -> list[Any] | None:
    """The next one, if there is any; None where it cannot be read."""
    with suppress(sqlite3.Error):
        return db.execute(walk.read, (key, 1)).fetchall()
    return None


def _is_sound(row: Sequence[Any]) -> bool:
    """Whether what was read, see _EVENT, is a row of events."""
    columns = row[2 : 2 + len(_FIELDS)]
    return (
        all(value is not None for at, value in enumerate(columns) if at not in _MAY_BE_NULL)
        and all(isinstance(value, str) for value in columns[:3])
        and columns[_SERVER] in {*_SETTLED, "pending"}
    )


def _within(ranges: Sequence[tuple[int, int]], key: int) -> bool:
    at = bisect_right(ranges, (key, _LAST)) - 1
    return at >= 0 and key <= ranges[at][1]


def _joined(ranges: Sequence[tuple[int, int]], keys: Sequence[int]) -> list[tuple[int, int]]:
    """With these keys; what overlaps or touches is one range."""
    joined = list[tuple[int, int]]()
    for first, last in sorted([*ranges, *((key, key) for key in keys)]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def _without(ranges: Sequence[tuple[int, int]], keys: Sequence[int]) -> list[tuple[int, int]]:
    """Without these keys."""
    left = list(ranges)
    for key in keys:
        for at, (first, last) in enumerate(left):
            if first <= key <= last:
                parts = [(first, key - 1), (key + 1, last)]
                left[at : at + 1] = [one for one in parts if one[0] <= one[1]]
                break
    return left


def _each(ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)
