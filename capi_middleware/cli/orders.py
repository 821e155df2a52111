"""Paid orders from a CSV file, as shops export them: by the names and words of orders.toml."""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct

_WORDS = msgspec.toml.decode(Path(__file__).with_name("orders.toml").read_bytes())
#: By meaning: the usual names of a column, best first.
_USUAL: dict[str, list[str]] = {"id": [*chain(*_WORDS["ids"])], **_WORDS["columns"]}
MEANINGS = tuple(_USUAL)
#: So many lines are looked at to find the number of an order.
_LOOKED_AT = 1000
_FREE_TEXT, _DIGIT = re.compile(r"[\s@{]"), re.compile(r"\d")
_TEST, _NEGATIVE = "test", "negative"
_UNDONE = ("refunded", "cancelled")
#: 20.11.2026, 11/20/2026 or 20/11/2026.
_SLASHED = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})(?!\d)")
#: Hours from UTC.
_ZONES = {
    "UTC": 0, "GMT": 0, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EST": -5, "EDT": -4,
    "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "AEST": 10, "AEDT": 11,
}  # fmt: skip
_DAY = 86_400.0
#: How far a local time may be from UTC, in seconds.
_FARTHEST_ZONE = 14 * 3600.0


class Order(Struct, frozen=True):
    """One paid order; the value is None when the file has none.

    `time` in Unix seconds, give or take `slack` seconds: a date tells no hour, and a time without
    an offset of an unknown zone may be half a day off. `email` and `phone` are raw: they live in
    memory until they are hashed, and are in no repr.
    """

    id: str
    line: int
    time: float
    slack: float = 0.0
    value: Decimal | None = None
    currency: str = ""
    email: str = ""
    phone: str = ""
    consent: bool | None = None

    def __repr__(self) -> str:
        return f"Order({self.id!r}, line={self.line})"


class NotPaid(Struct, frozen=True):
    """An order that was refunded, cancelled or never paid, as the shop's word `status` has it."""

    id: str
    line: int
    status: str


class Orders(Struct):
    """What a file holds: `columns` by their meaning, `bad_lines` with why, but not their values.

    `left_out` is how many lines are no paid order, by why; `not_paid` are those that say why, by
    their id.
    """

    columns: dict[str, str]
    orders: list[Order]
    bad_lines: list[dict[str, Any]]
    left_out: dict[str, int] = {}
    not_paid: dict[str, NotPaid] = {}

    def leave_out(self, why: str, given: Mapping[str, str], line: int) -> None:
        """Count a line that is no paid order, and keep which one."""
        self.left_out[why] = self.left_out.get(why, 0) + 1
        said = given.get("status", "")
        status = why if plain_name(said) in ("", *_WORDS["paid"]) else said
        if given["id"] and (said or why in _UNDONE) and why not in (_TEST, _NEGATIVE):
            one = NotPaid(given["id"], line, status)
            self.not_paid.setdefault(one.id, one)


class Written(Struct, frozen=True):
    """How an app writes the number of an order as its dedupe_key: `bare` is without Shopify's #."""

    bare: bool = False
    before: str = ""
    after: str = ""

    def __call__(self, number: str) -> str:
        """The dedupe_key of an order with this number."""
        return self.before + (number.removeprefix("#") if self.bare else number) + self.after


class Numbers(Struct, frozen=True):
    """A column that may be the number of an order: its rank (0 is the surest) and first values."""

    column: str
    rank: int
    first: list[str]


def numbers_in(path: Path, chosen: str | None) -> list[Numbers]:
    """The columns of a CSV file that may be its orders' numbers, or the one that was `chosen`.

    Raises ValueError as read_orders() does.
    """
    with _opened(path) as rows:
        names: list[str] = next(rows, [])
        if chosen is not None:
            known = [(_place(names, "id", chosen), 0)]
        else:
            plain = [plain_name(name) for name in names]
            known = [
                (plain.index(name), rank)
                for rank, alike in enumerate(_WORDS["ids"])
                for name in alike
                if name in plain
            ]
        if not known:
            raise _needs("id", names)
        some = list(islice(rows, _LOOKED_AT))
    found = [
        Numbers(names[place], rank, [text for row in some if (text := _cell(row, place))])
        for place, rank in known
    ]
    if chosen is not None:
        return found
    numbers = [one for one in found if _are_numbers(one)]
    if not numbers and any(one.first for one in found):
        raise _needs("id", names)
    return numbers or found[:1]


def _are_numbers(numbers: Numbers) -> bool:
    """Whether these may be orders': PayPal's Name is a person, and a free text may have anything.

    What is none is neither shown nor sent.
    """
    by_name = plain_name(numbers.column) == "name"
    return bool(numbers.first) and not any(
        _FREE_TEXT.search(text) or (by_name and not _DIGIT.search(text)) for text in numbers.first
    )


def read_orders(
    path: Path,
    chosen: Mapping[str, str | None],
    *,
    currency: str = "",
    zone: tzinfo | None = None,
    written: Callable[[str], str] = str,
    day_first: bool | None = None,
) -> Orders:
    """The paid orders of a CSV file.

    Args:
        path: comma, semicolon or tab separated, UTF-8 or UTF-16, its first line the names of the
            columns.
        chosen: a column's name for a meaning of MEANINGS, where the usual names do not do.
        currency: for lines that name none.
        zone: of times without an offset; without it UTC is supposed.
        written: an order's number as its dedupe_key.
        day_first: how 3/4/2026 is meant; without it other dates of the file must tell.

    Raises ValueError for no readable file, where a needed column is missing, and for dates that
    may be another day.
    """
    with _opened(path) as rows:
        names: list[str] = next(rows, [])
        places = _places(names, chosen)
        found = Orders({meaning: names[place] for meaning, place in places.items()}, [], [])
        more = _places_of_more(names, places)
        if plain_name(names[places["time"]]).endswith("utc"):
            zone = UTC
        if day_first is None:
            day_first = _day_first(path, places["time"])
        orders: dict[str, Order] = {}
        refunds: defaultdict[str, Decimal] = defaultdict(Decimal)
        for row in rows:
            if not any(row):
                continue
            line = rows.line_num
            given = {meaning: _cell(row, place) for meaning, place in (places | more).items()}
            if given["id"]:
                given["id"] = written(given["id"])
            # Shops write an order of several items in several lines, complete in the first.
            known = given["id"] in orders or given["id"] in found.not_paid
            if known and not given.get("status") and not given["time"]:
                continue
            if why := _no_order(given):
                if not (given["id"] in orders and why == "not paid"):
                    found.leave_out(why, given, line)
                continue
            try:
                order = _order(given, line, currency, zone, day_first=day_first)
                refund = amount_of(given.get("refund") or "0", order.currency)
            except ValueError as error:
                if given["id"] not in orders:
                    found.bad_lines.append({"line": line, "why": str(error)})
                continue
            if order.value is not None and order.value < 0:
                found.leave_out(_NEGATIVE, given, line)
                refunds[order.id] -= order.value
            elif order.id not in orders:
                orders[order.id] = order
                refunds[order.id] += refund
    for order in orders.values():
        if order.value and refunds[order.id] >= order.value:
            found.leave_out("refunded", {"id": order.id}, order.line)
        else:
            found.orders.append(order)
            found.not_paid.pop(order.id, None)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A reader of the lines of a CSV file. Raises ValueError for what is none."""
    try:
        with path.open("rb") as raw:
            utf16 = raw.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE)
        with path.open(encoding="utf-16" if utf16 else "utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            yield csv.reader(file, delimiter=max(",;\t", key=head.count))
    except (OSError, UnicodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, UnicodeError):
            why = "of Excel? save it as CSV UTF-8; else: iconv -f windows-1252 -t utf-8"
        raise ValueError(f"{path}: found no readable CSV file in UTF-8 ({why})") from None


def _cell(row: Sequence[str], place: int) -> str:
    return row[place].strip() if place < len(row) else ""


def _place(names: Sequence[str], meaning: str, wanted: str) -> int:
    if wanted not in names:
        shown = ", ".join(names[:20]) or "no columns"
        raise ValueError(f"--{meaning}-column: found no column {wanted!r}, expected one of {shown}")
    return names.index(wanted)


def _needs(meaning: str, names: Sequence[str]) -> ValueError:
    shown = ", ".join(names[:20]) or "no columns"
    return ValueError(
        f"found no column for the {meaning} of an order among {shown}, expected --{meaning}-column"
    )


def _places(names: Sequence[str], chosen: Mapping[str, str | None]) -> dict[str, int]:
    """The place of each meaning's column: the chosen one, else the best of the usual names."""
    places: dict[str, int] = {}
    plain = [plain_name(name) for name in names]
    for meaning in MEANINGS:
        usual, wanted = _USUAL[meaning], chosen.get(meaning)
        if wanted is not None:
            places[meaning] = _place(names, meaning, wanted)
        elif known := [name for name in usual if name in plain]:
            places[meaning] = plain.index(known[0])
        elif meaning in ("id", "time"):
            raise _needs(meaning, names)
    return places


def _places_of_more(names: Sequence[str], places: Mapping[str, int]) -> dict[str, int]:
    plain, taken = [plain_name(name) for name in names], set(places.values())
    more = {
        meaning: plain.index(name)
        for meaning, usual in _WORDS["more"].items()
        for name in usual
        if name in plain and plain.index(name) not in taken
    }
    if plain[places["time"]] not in ("date", "datum"):
        more.pop("clock", None)
    return more


def _no_order(given: Mapping[str, str]) -> str:
    """Why a line is no paid order; "" for one."""
    status = given.get("status", "")
    word = plain_name(status.removeprefix("wc-"))
    for meaning in _UNDONE:
        if word in _WORDS[meaning]:
            return meaning
    if given.get("cancelled"):
        return "cancelled"
    if "status" in given and word not in _WORDS["paid"]:
        return "not paid"
    if given.get("mode", "").lower() in ("test", "false"):
        return _TEST
    # PayPal's list has fees, transfers and conversions as well.
    return "no order" if "type" in given and not given["id"] else ""


def _day_first(path: Path, place: int) -> bool | None:
    """How the dates of a file such as 3/4/2026 are meant; None without any."""
    is_slashed = False
    with _opened(path) as rows:
        next(rows, [])
        for row in rows:
            if found := _SLASHED.match(_cell(row, place)):
                is_slashed = True
                if int(found[1]) > 12 or int(found[3]) > 12:
                    return int(found[1]) > 12
                if found[2] == ".":
                    return True
    if is_slashed:
        raise ValueError(
            "found dates that may be another day, such as 3/4/2026, expected --dates day-first or "
            "--dates month-first"
        )
    return None


def _order(
    given: Mapping[str, str], line: int, currency: str, zone: tzinfo | None, *,
    day_first: bool | None,
) -> Order:  # fmt: skip
    if not given["id"]:
        raise ValueError("no order id")
    if not given["id"].isprintable():
        raise ValueError("an order id with control characters")
    consent = given.get("consent")
    money = (given.get("currency") or currency).upper()
    when = f"{given['time']} {given.get('clock', '')}".rstrip()
    moment, slack = moment_of(when, _zone(given.get("zone", "")) or zone, day_first=day_first)
    return Order(
        given["id"], line, moment, slack, currency=money,
        value=amount_of(given["value"], money) if given.get("value") else None,
        email=given.get("email", ""), phone=given.get("phone", ""),
        consent=agreed(consent) if consent else None,
    )  # fmt: skip


def _zone(name: str) -> tzinfo | None:
    """A time zone by its name, or as PayPal abbreviates it; None for another text."""
    if name.upper() in _ZONES:
        return timezone(timedelta(hours=_ZONES[name.upper()]))
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def moment_of(
    text: str, zone: tzinfo | None, *, day_first: bool | None = None
) -> tuple[float, float]:
    """Unix seconds, and how far off they may be."""
    if re.fullmatch(r"\d{9,10}(\.\d+)?", text):
        return float(text), 0.0
    if re.fullmatch(r"\d{12,13}", text):
        return int(text) / 1000, 0.0
    # "2026-11-20 14:03:22 +0100" and "... UTC", as shops write it.
    tidy = re.sub(r"\s*(UTC|GMT|Z)$", "+00:00", text)
    tidy = re.sub(r"\s+([+-]\d\d:?\d\d)$", r"\1", tidy)
    slashed = _SLASHED.match(tidy)
    has_hour = ":" in tidy
    if slashed and day_first is not None:
        day, month = (slashed[1], slashed[3]) if day_first else (slashed[3], slashed[1])
        tidy = f"{slashed[4]}-{month:>02}-{day:>02}" + _clock(tidy[slashed.end() :])
    try:
        moment = datetime.fromisoformat(tidy)
    except ValueError:
        raise ValueError("a time that is neither ISO 8601 nor Unix seconds") from None
    slack = 0.0 if has_hour or re.search(r"\dT\d", tidy) else _DAY
    if moment.tzinfo is None:
        slack += 0.0 if zone is not None else _FARTHEST_ZONE
        moment = moment.replace(tzinfo=zone or UTC)
    return moment.timestamp(), slack


def _clock(text: str) -> str:
    """ " 6:29:00 PM" as ISO 8601 has it; other texts as they are."""
    found = re.fullmatch(r"[ ,]+(\d{1,2}):(\d\d)(:\d\d)?\s*([AaPp][Mm])?(.*)", text)
    if found is None:
        return text
    hour = int(found[1])
    if found[4]:
        hour = hour % 12 + (12 if found[4].lower() == "pm" else 0)
    return f"T{hour:02}:{found[2]}{found[3] or ''}{found[5]}"


def amount_of(text: str, currency: str) -> Decimal:
    """The number in "1.234,56 €", "1,234.56" or "12.50": the last mark separates the cents."""
    digits = re.sub(r"[^\d.,-]", "", text)
    whole, mark, cents = re.fullmatch(r"(.*?)(?:([.,])(\d*))?", digits).groups("")  # type: ignore[union-attr] # matches any text
    if mark and mark in whole and len(cents) == 3:
        whole, mark, cents = whole + cents, "", ""  # 1.234.567
    elif (
        len(cents) == 3
        and not re.search(r"[.,]", whole)
        and currency not in _WORDS["three_decimals"]
    ):
        raise ValueError("a value that may have thousands or decimals: write it with cents")
    try:
        return Decimal(re.sub(r"[.,]", "", whole) + (f".{cents}" if cents else ""))
    except InvalidOperation:
        raise ValueError("a value that is no number") from None


def agreed(consent: str) -> bool:
    """Whether a shop's word means that the visitor agreed."""
    return plain_name(consent) in _WORDS["yes"]


def plain_name(text: str) -> str:
    """The name of a column, or a word in it: lower case without blanks and marks."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
