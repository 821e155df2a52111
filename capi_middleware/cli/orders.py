"""Paid orders from a CSV file, as shops export them: by the names and words of orders.toml."""

import csv
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

_WORDS = msgspec.toml.decode(Path(__file__).with_name("orders.toml").read_bytes())
#: By meaning: the usual names of a column, best first.
USUAL: dict[str, list[str]] = _WORDS["columns"]
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

    `unpaid` is how many lines are no paid order; `not_paid` are those that say why, by their id.
    """

    columns: dict[str, str]
    orders: list[Order]
    bad_lines: list[dict[str, Any]]
    unpaid: int = 0
    not_paid: dict[str, NotPaid] = {}


def read_orders(
    path: Path, chosen: Mapping[str, str | None], *, currency: str = "", zone: tzinfo | None = None
) -> Orders:
    """The paid orders of a CSV file.

    Args:
        path: comma, semicolon or tab separated, UTF-8, its first line the names of the columns.
        chosen: a column's name for a meaning of USUAL, where the usual names do not do.
        currency: for lines that name none.
        zone: of times without an offset; without it UTC is supposed.

    Raises ValueError for no readable file, and where a needed column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=max(",;\t", key=head.count))
            names = next(rows, [])
            places = _columns(names, chosen)
            found = Orders({meaning: names[place] for meaning, place in places.items()}, [], [])
            seen: set[str] = set()
            for row in rows:
                if not any(row):
                    continue
                row += [""] * (len(names) - len(row))
                given = {meaning: row[place].strip() for meaning, place in places.items()}
                # Shops write an order of several items in several lines, complete in the first.
                if given["id"] in seen:
                    continue
                if "status" in given and plain_name(given["status"]) not in _WORDS["paid"]:
                    found.unpaid += 1
                    if given["id"] and given["status"]:
                        one = NotPaid(given["id"], rows.line_num, given["status"])
                        found.not_paid.setdefault(one.id, one)
                    continue
                try:
                    found.orders.append(_order(given, rows.line_num, currency, zone))
                except ValueError as error:
                    found.bad_lines.append({"line": rows.line_num, "why": str(error)})
                else:
                    seen.add(given["id"])
            return found
    except (OSError, UnicodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(f"{path}: found no readable CSV file in UTF-8 ({why})") from None


def _columns(names: Sequence[str], chosen: Mapping[str, str | None]) -> dict[str, int]:
    """The place of each meaning's column: the chosen one, else the best of the usual names."""
    places: dict[str, int] = {}
    plain, shown = [plain_name(name) for name in names], ", ".join(names[:20]) or "no columns"
    for meaning, usual in USUAL.items():
        option, wanted = f"--{meaning}-column", chosen.get(meaning)
        if wanted in names:
            places[meaning] = names.index(wanted)
        elif wanted is not None:
            raise ValueError(f"{option}: found no column {wanted!r}, expected one of {shown}")
        elif known := [name for name in usual if name in plain]:
            places[meaning] = plain.index(known[0])
        elif meaning in ("id", "time"):
            raise ValueError(f"found no column for the {meaning} of an order among {shown}, "
                             f"expected {option}")  # fmt: skip
    return places


def _order(given: Mapping[str, str], line: int, currency: str, zone: tzinfo | None) -> Order:
    if not given["id"]:
        raise ValueError("no order id")
    if not given["id"].isprintable():
        raise ValueError("an order id with control characters")
    consent = given.get("consent")
    money = (given.get("currency") or currency).upper()
    moment, slack = moment_of(given["time"], zone)
    return Order(
        given["id"], line, moment, slack, currency=money,
        value=amount_of(given["value"], money) if given.get("value") else None,
        email=given.get("email", ""), phone=given.get("phone", ""),
        consent=agreed(consent) if consent else None,
    )  # fmt: skip


def moment_of(text: str, zone: tzinfo | None) -> tuple[float, float]:
    """Unix seconds, and how far off they may be."""
    if re.fullmatch(r"\d{9,10}(\.\d+)?", text):
        return float(text), 0.0
    if re.fullmatch(r"\d{12,13}", text):
        return int(text) / 1000, 0.0
    # "2026-11-20 14:03:22 +0100" and "... UTC", as shops write it.
    tidy = re.sub(r"\s*(UTC|GMT|Z)$", "+00:00", text)
    tidy = re.sub(r"\s+([+-]\d\d:?\d\d)$", r"\1", tidy)
    try:
        moment = datetime.fromisoformat(tidy)
    except ValueError:
        raise ValueError("a time that is neither ISO 8601 nor Unix seconds") from None
    slack = _DAY if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text) else 0.0
    if moment.tzinfo is None:
        slack += 0.0 if zone is not None else _FARTHEST_ZONE
        moment = moment.replace(tzinfo=zone or UTC)
    return moment.timestamp(), slack


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
