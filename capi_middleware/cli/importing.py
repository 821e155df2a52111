"""import: a file of past events of a shop, a phone or a CRM, sent once however often it is read."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import msgspec
from msgspec import Struct, field

from capi_middleware.capi import CAPI
from capi_middleware.cli import terminal
from capi_middleware.cli.orders import agreed, amount_of, moment_of, plain_name
from capi_middleware.meta.custom_data import clean, refused_by_meta
from capi_middleware.meta.event_object import ACTION_SOURCES, FIELDS, identifies, standard_name
from capi_middleware.meta.user_data import UserData
from capi_middleware.request.issuing import names_nothing

_WORDS: dict[str, dict[str, list[str]]] = msgspec.toml.decode(
    Path(__file__).with_name("events.toml").read_bytes()
)
#: By meaning: the usual names of a column, best first.
_USUAL = {
    name: [plain_name(name), *words] for table in _WORDS.values() for name, words in table.items()
}
#: So many lines are read, looked up and queued together.
_TOGETHER = 500
_SHOWN = 50


class Made(Struct):
    """One line as CAPI.track takes it; what is personal in it lives until it is hashed."""

    line: int
    event_id: str
    event_name: str
    dedupe_key: str
    given: dict[str, Any]

    def __repr__(self) -> str:
        return f"Made({self.event_name!r}, line={self.line})"


class Told(Struct):
    """What a file came to: `known` lines are in the ledger, `repeated` ones earlier in the file."""

    columns: dict[str, str]
    unused: list[str]
    rows: int = 0
    queued: int = 0
    known: int = 0
    repeated: int = 0
    denied: int = 0
    bad_lines: list[dict[str, Any]] = field(default_factory=list)
    dry_run: bool = False


class Defaults(Struct, frozen=True):
    """What holds for lines that do not say it; `zone` is that of times without an offset."""

    event_name: str
    action_source: str | None
    currency: str
    zone: tzinfo | None


@click.command("import", short_help="Send a file (CSV) of events from beyond the page.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--event", default="", help="The event of lines that name none.")
@click.option(
    "--action-source", type=click.Choice(ACTION_SOURCES), metavar="PLACE",
    help=f"Where events of lines that do not say it happened: {', '.join(ACTION_SOURCES)}. "
    "Config's without it.",
)  # fmt: skip
@click.option("--currency", default="", help="For lines that name none.")
@click.option("--timezone", help="Of times without an offset, e.g. Europe/Berlin.")
@click.option(
    "--column", "columns", multiple=True, metavar="MEANING=NAME",
    help="Where the usual names do not do, e.g. em=Kundenmail.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be queued, and queue nothing.")
@terminal.JSON
@click.pass_obj
def import_events(
    source: str, /, file: Path, event: str, action_source: str | None, currency: str,
    timezone: str | None, columns: Sequence[str], dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Send a file (CSV) of events that happened beyond the page: in a shop, on the phone, in a CRM.

    Columns are found by their usual names. A line is one event for ever: by its id column, or
    without one by all that it says. So the same file may be given again, also after a kill. What
    is personal is hashed in memory. Exit code 0 when all lines are on their way, 1 when one is bad.
    """
    try:
        zone = ZoneInfo(timezone) if timezone else None
        chosen = dict(_pair(one) for one in columns)
        with (
            terminal.opened(source, durability="none") as capi,
            file.open(encoding="utf-8-sig", newline="") as text,
        ):
            head = text.readline()  # a pipe is read once
            lines = csv.reader(chain([head], text), delimiter=max(",;\t", key=head.count))
            names = next(lines, [])
            places = _columns(names, chosen, event)
            told = Told(
                {meaning: names[place] for meaning, place in places.items()},
                [name for at, name in enumerate(names) if at not in places.values()],
                dry_run=dry_run,
            )
            defaults = Defaults(
                event, action_source or capi.config.action_source, currency.upper(), zone
            )
            made = _read(capi, lines, places, defaults, told)
            with terminal.progress("importing") as shown:
                while batch := list(islice(made, _TOGETHER)):
                    _queue(capi, batch, told)
                    shown.update(f"importing: {told.rows:,} lines")
    except (OSError, UnicodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, UnicodeError):
            why = "of Excel? save it as CSV UTF-8; else: iconv -f windows-1252 -t utf-8"
        raise click.UsageError(f"{file}: found no readable CSV file in UTF-8 ({why})") from None
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    terminal.print_json(told) if as_json else _print(told)
    sys.exit(1 if told.bad_lines else 0)


def _pair(text: str) -> tuple[str, str]:
    meaning, _, name = text.partition("=")
    if meaning not in _USUAL or not name:
        raise ValueError(f"--column: found {text!r}, expected MEANING=NAME with one of "
                         f"{', '.join(_USUAL)}")  # fmt: skip
    return meaning, name


def _columns(names: Sequence[str], chosen: Mapping[str, str], event: str) -> dict[str, int]:
    """The place of each meaning's column: the chosen one, else the best of the usual names."""
    places: dict[str, int] = {}
    plain = [plain_name(name) for name in names]
    shown = ", ".join(names[:20]) or "no columns"
    for meaning, usual in _USUAL.items():
        wanted = chosen.get(meaning)
        if wanted is not None and wanted not in names:
            raise ValueError(f"--column: found no column {wanted!r}, expected one of {shown}")
        known = [plain.index(name) for name in usual if name in plain]
        if wanted is not None:
            places[meaning] = names.index(wanted)
        elif known:
            places[meaning] = known[0]
    if "event_time" not in places:
        raise ValueError(f"found no column for the event_time among {shown}, expected "
                         "--column event_time=NAME")  # fmt: skip
    if "event_name" not in places and not event:
        raise ValueError(f"found no column for the event_name among {shown}, expected --event NAME "
                         "or --column event_name=NAME")  # fmt: skip
    return places


def _read(
    capi: CAPI, lines: Any, places: Mapping[str, int], defaults: Defaults, told: Told
) -> Iterator[Made]:
    """The usable lines, each event once; what is wrong with others is told."""
    seen: set[str] = set()
    for row in lines:
        if not any(row):
            continue
        told.rows += 1
        row += [""] * (max(places.values()) + 1 - len(row))
        given = {meaning: text for meaning, place in places.items() if (text := row[place].strip())}
        try:
            if given.get("consent") and not agreed(given["consent"]):
                told.denied += 1
                continue
            key = given.get("id") or sha256("\n".join(row).encode()).hexdigest()
            if names_nothing(key) or not key.isprintable():
                raise ValueError("an id that names nothing")
            made = _made(capi, lines.line_num, key, given, defaults)
        except ValueError as error:
            told.bad_lines.append({"line": lines.line_num, "why": str(error)})
            continue
        if made.event_id in seen:
            told.repeated += 1
        else:
            seen.add(made.event_id)
            yield made


def _made(capi: CAPI, line: int, key: str, given: Mapping[str, str], defaults: Defaults) -> Made:
    """What a line says. Raises ValueError that says why Meta would not take it, but no value."""
    name = given.get("event_name", defaults.event_name)
    if len(name) > 50 or not name.isprintable():
        raise ValueError("no event_name of 1 to 50 printable characters")
    if meant := standard_name(name):
        raise ValueError(f"an event name that is almost {meant!r}")
    source = given.get("action_source", defaults.action_source)
    if source not in ACTION_SOURCES:
        nine = ", ".join(ACTION_SOURCES)
        raise ValueError(
            f"no action_source (in a column or --action-source), expected one of {nine}"
        )
    moment, slack = moment_of(given.get("event_time", ""), defaults.zone)
    if slack and defaults.zone is None:
        raise ValueError("a time without an offset, expected one or --timezone")
    money = given.get("currency", defaults.currency).upper()
    data: dict[str, Any] = {name: given[name] for name in _WORDS["custom_data"] if name in given}
    if "content_ids" in data:
        data["content_ids"] = data["content_ids"].replace(";", ",").replace("|", ",").split(",")
    if "value" in given:
        data |= {"value": amount_of(given["value"], money), "currency": money}
    cleaned, wrong = clean(name, data)
    if wrong or refused_by_meta(name, cleaned):
        bad = ", ".join(sorted(set(wrong))) or "value, currency"
        raise ValueError(f"unusable {bad}: a value needs a currency, a Purchase needs both")
    known = UserData(**{name: given[name] for name in _WORDS["user_data"] if name in given})
    hashed, left = known.hashed(capi.config.default_region)
    if not identifies(hashed):
        unusable = f" (unusable: {', '.join(left)})" if left else ""
        raise ValueError(f"too little customer information for Meta{unusable}")
    details = {name: given[name] for name in FIELDS if name in given and name != "action_source"}
    said = {**details, "action_source": source, "event_time": moment}
    event = capi.issuer.new_event(name, key, None)
    event.user_data = hashed
    capi.issuer.say(event, said, strict=True)
    if not event.pixel_ids:
        raise ValueError("an event that no pixel takes")
    if source == "website" and not capi.issuer.has_page(
        event, None, details.get("event_source_url")
    ):
        raise ValueError("a website event without event_source_url and client_user_agent")
    return Made(line, event.event_id, name, key, {**data, **said, "user_data": known})


def _queue(capi: CAPI, batch: Sequence[Made], told: Told) -> None:
    """Queue those of a batch that no ledger knows, and see that they are on disk."""
    store = capi.store
    ids = {one.event_id: one for one in batch}
    known = {one.event_id for one in store.find([*ids])} | set(store.remembered([*ids]))
    told.known += len(known)
    new = {event_id: one for event_id, one in ids.items() if event_id not in known}
    if told.dry_run:
        told.queued += len(new)
        return
    for event_id, one in [*new.items()]:
        try:
            capi.track(one.event_name, dedupe_key=one.dedupe_key, **one.given)
        except ValueError as error:
            del new[event_id]
            told.bad_lines.append({"line": one.line, "why": str(error)})
    if not store.flush(60.0):
        raise click.ClickException("the store does not take them: give the file again later")
    told.queued += len({one.event_id for one in store.find([*new])})


def _print(told: Told) -> None:
    columns = ", ".join(f"{name} as {meaning}" for meaning, name in told.columns.items())
    terminal.print_line(f"columns: {columns}")
    if told.unused:
        terminal.print_line(f"not used: {', '.join(told.unused)}")
    done = "would be queued" if told.dry_run else "queued"
    terminal.print_line(
        f"{told.rows:,} lines: {told.queued:,} {done}, {told.known:,} known before, "
        f"{told.repeated:,} repeated, {told.denied:,} without consent, {len(told.bad_lines):,} bad"
    )
    for one in told.bad_lines[:_SHOWN]:
        terminal.print_line(f"line {one['line']}: {one['why']}")
    if len(told.bad_lines) > _SHOWN:
        terminal.print_line(f"… and {len(told.bad_lines) - _SHOWN:,} more, see --json")
