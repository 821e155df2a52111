"""check: is this setup right? All that can be looked at from here, with a fix for what is wrong."""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import click
import msgspec
from msgspec import Struct

from capi_middleware.cli.terminal import JSON, config_of, print_json, print_line
from capi_middleware.config.notices import PASSING, filesystem_of, mounts, on_network
from capi_middleware.config.pixels import Pixel
from capi_middleware.config.routes import EventRoute
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError
from capi_middleware.events import Event
from capi_middleware.meta.codes import judge, meaning_of, read_error
from capi_middleware.meta.graph import GraphClient
from capi_middleware.meta.http import NoAnswer
from capi_middleware.meta.payload import encode
from capi_middleware.meta.user_data import UserData
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.read import read_health
from capi_middleware.signing import Minter, fingerprint
from capi_middleware.store.opening import open_store

#: A name of our own: nothing optimises for it, whatever code it is sent with.
EVENT_NAME = "CapiMiddlewareCheck"
_GRAPH = "https://graph.facebook.com"
_SECRETS = (
    "secret_key", "report_token", "access_token", "read_token", "app_secret", "alert_webhook",
)  # fmt: skip
#: Methods of requests that show nobody a page; they are never events.
_SILENT = ("HEAD", "OPTIONS", "TRACE", "CONNECT")
#: Free space below which a full disk is near, in bytes.
_LITTLE = 500 * 1024 * 1024
_PROBE = "check"


Level = Literal["ok", "warning", "error"]
#: What may be found: whether it holds, the part of the setup, how bad it is, what is said, the fix.
Row = tuple[object, str, Level, str, str]


class Finding(Struct, frozen=True):
    """One thing that was looked at: what was found, and the fix where something is wrong."""

    part: str
    level: Level
    text: str
    fix: str = ""


def those_that_hold(rows: Iterable[Row]) -> Iterator[Finding]:
    """The findings of the rows that hold."""
    return (Finding(part, level, text, fix) for holds, part, level, text, fix in rows if holds)


def flagged(part: str, facts: Facts) -> list[Finding]:
    """What the report's flags say of these facts."""
    levels: dict[str, Level] = {"critical": "error"}
    return [
        Finding(part, levels.get(flag.severity, "warning"), flag.explanation, flag.fix)
        for flag in flags_of(facts)
    ]


@click.command()
@click.option("--url", help="A page of the site: its tag, other pixels, policy and caches.")
@click.option("--send", is_flag=True, help="Send a test event to each pixel and show the answer.")
@click.option("--test-event-code", "code", help="For the test event; implies --send.")
@JSON
@click.pass_obj
def check(source: str, url: str | None, send: bool, code: str | None, as_json: bool) -> None:
    """Look at the configuration, the store, Meta's answer and a page; exit code 1 for an error.

    A test event is sent with --send, and without it where a test_event_code is configured. It is
    named CapiMiddlewareCheck and counts as a custom event, as Meta counts test events too. Getting
    the page of --url is a visit like any other, without JavaScript.
    """
    found = []
    for one in _look(source, url, send or bool(code), code):
        found.append(one)
        if not as_json:
            print_line(f"{one.level:<8} {one.part}: {one.text}")
            if one.fix:
                print_line(f"{'':<8} fix: {one.fix}")
    errors = sum(one.level == "error" for one in found)
    if as_json:
        print_json({"ok": not errors, "findings": found})
    sys.exit(1 if errors else 0)


def _look(source: str, url: str | None, send: bool, code: str | None) -> Iterator[Finding]:
    try:
        config = config_of(source)
    except CapiError as failure:
        fix = "Mend this setting; `capi-middleware init` writes a file that loads."
        yield Finding("config", "error", str(failure), fix)
        return
    told = f"{source} loads: {len(config.pixels)} pixels, {len(config.routes)} routes"
    yield Finding("config", "ok", told)
    if Path(source).is_file():
        yield from those_that_hold(_secrets(Path(source)))
    yield from those_that_hold(_keys(config))
    yield from those_that_hold(_settings(config))
    yield from (next(those_that_hold(_route(config, route))) for route in config.routes)
    yield from _store(config)
    if send or _is_tested(config):
        for pixel in config.pixels:
            yield _send(config, pixel, code or pixel.test_event_code or config.test_event_code)
    if url:
        from capi_middleware.cli.check_page import check_page

        yield from check_page(config, url)


# -- the configuration: it loads, so that what can never work is out already -----------------------


def _secrets(path: Path) -> Iterator[Row]:
    """Secrets that stand in a capi.toml themselves."""
    data = msgspec.toml.decode(path.read_bytes())
    for prefix, table in [("", data), *(("pixels.", one) for one in data.get("pixels", []))]:
        for name in _SECRETS:
            value = table.get(name, "env:")
            values = value if isinstance(value, list) else [value]
            yield (
                not all(str(one).startswith("env:") for one in values), "secrets", "warning",
                f"{prefix}{name} stands in {path} itself",
                f'Write {name} = "env:NAME" and set NAME in the environment.',
            )  # fmt: skip


def _keys(config: Config) -> Iterator[Row]:
    for place, secret in enumerate(config.secrets):
        # Eight digits tell two keys apart and help nobody to guess one.
        mark, which = fingerprint(secret)[:8], "still verifies" if place else "signs"
        text = f"{len(secret)} characters, {which}, fingerprint {mark} (the same on every machine)"
        varied = len(set(secret)) >= 10
        yield varied, "secret_key", "ok", text, ""
        yield (
            not varied, "secret_key", "warning", f"{text}; few different characters",
            "Make a random one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )  # fmt: skip
    yield (
        os.environ.get("CAPI_SECRET_KEY", config.secrets[0]) not in config.secrets,
        "secret_key", "warning",
        "the configuration has another one than this environment's CAPI_SECRET_KEY",
        'Use one for all: secret_key = "env:CAPI_SECRET_KEY". Processes with different keys '
        "do not believe each other's event_ids.",
    )  # fmt: skip


def _is_tested(config: Config) -> bool:
    codes = (config.test_event_code, *(pixel.test_event_code for pixel in config.pixels))
    return any(codes)


def _settings(config: Config) -> Iterator[Row]:
    served, length = config.report_token is not None, len(config.report_token or "")
    yield from (
        (not served and not config.debug, "report", "ok",
         "without a report_token the report is not served", ""),
        (not served and config.debug, "report", "warning",
         "debug serves the report to everybody", "Set debug to false in production."),
        (served and length < 16, "report", "warning",
         f"a report_token of {length} characters", "Make a longer one."),
        (length >= 16, "report", "ok", f"served at {config.prefix}/parity", ""),
        (_is_tested(config), "test_event_code", "warning",
         "set: all events show up in Test Events, and count as well",
         "Remove it when the test is over."),
        (config.graph_url.rstrip("/") != _GRAPH, "graph_url", "warning",
         f"events go to {config.graph_url}, not to Meta",
         "Remove graph_url, unless this is a test."),
        (config.consent is None, "consent", "ok",
         "everybody is tracked: no consent rule is set", ""),
    )  # fmt: skip
    for pixel in config.pixels:
        takes = f"{pixel.id} takes "
        yield pixel.events is None, "pixel", "ok", f"{takes}all events", ""
        yield pixel.events, "pixel", "ok", takes + ", ".join(pixel.events or ()), ""
        yield (pixel.events is not None and not pixel.events, "pixel", "warning",
               f"{takes}no event", "Leave events out, or list some.")  # fmt: skip
    yield (
        not (config.routes or config.page_view or config.mirror), "routes", "warning",
        "no route, no page_view and no mirror: only track() makes events",
        "Add [[routes]], or leave page_view on.",
    )  # fmt: skip


def _route(config: Config, route: EventRoute) -> list[Row]:
    """What may be said of a route, the worst first: it is told the first that holds."""
    text = f"{route.match} → {route.event_name}"
    excluded = next((one for one in config.exclude if route.path.text.startswith(one)), None)
    return [
        (excluded is not None, "route", "error",
         f"{text} can never match: exclude has {excluded!r}",
         "Remove the route, or the path from exclude."),
        (route.method in _SILENT, "route", "error",
         f"{text} never counts: {route.method} shows no page",
         "Name the method of the request that is the event."),
        (route.event_name == "Purchase" and route.dedupe_key is None, "route", "warning",
         f"{text} has no dedupe_key: a refreshed page counts twice",
         'Add a dedupe_key such as "{path.order_id}", or give one to track().'),
        (True, "route", "ok", text, ""),
    ]  # fmt: skip


# -- the store: can it be opened and written, and does its disk keep what it is given? -------------


def _store(config: Config) -> Iterator[Finding]:
    kind, _, place = config.store.partition(":///")
    kind = kind.partition(":")[0]
    with ExitStack() as stack:
        try:
            store = open_store(config.store, queue_limit=config.queue_limit)
        except CapiError as failure:
            yield Finding("store", "error", str(failure), "Make the directory, or name another.")
            return
        stack.callback(store.close)
        try:
            depth = store.depth()
            store.keep(_PROBE, repr(time.time()).encode(), instead_of=store.kept(_PROBE))
            health = read_health(store, config)
        except CapiError as failure:
            fix = "Check that the path or the server exists and that this user may write."
            yield Finding("store", "error", f"{kind}: {failure}", fix)
            return
    told = f"{kind}: opens and takes writes, {sum(depth.values()):,} events"
    yield Finding("store", "ok", told)
    yield from flagged("delivery", Facts(health=health))
    if kind == "memory":
        told, fix = "memory: forgets all events at a restart", 'Set store = "sqlite:///capi.db".'
        yield Finding("store", "warning", told, fix)
    elif kind == "sqlite":
        yield from those_that_hold(_disk(Path(place)))


def _disk(path: Path) -> list[Row]:
    kind = filesystem_of(path.absolute(), mounts())
    free = shutil.disk_usage(path.absolute().parent).free
    return [
        (on_network(kind), "store", "error",
         f"{path} lies on a network file system ({kind}): SQLite's locks and its write-ahead "
         "log do not work there",
         "Put the file on a local disk, or use postgresql:// for several machines."),
        (kind in PASSING, "store", "warning",
         f"{path} lies in memory ({kind}): lost at a reboot", "Put the file on a disk."),
        (kind == "overlay", "store", "warning",
         f"{path} lies in the container: lost with it", "Put the file on a volume."),
        (free < _LITTLE, "store", "warning", f"{free // 1024**2:,} MB are free on its disk",
         "Make room: a full disk holds events back in memory."),
    ]  # fmt: skip


# -- a test event to Meta, and what its answer means -----------------------------------------------


def _send(config: Config, pixel: Pixel, code: str | None) -> Finding:
    now = time.time()
    event = Event(
        event_id=Minter(config.secrets).mint(EVENT_NAME, now),
        event_name=EVENT_NAME,
        event_time=now,
        pixel_ids=(pixel.id,),
        user_data=UserData(em="check@example.com").hashed()[0],
    )
    client = GraphClient(
        config.graph_url, config.graph_version, pixel.id, pixel.access_token,
        app_secret=pixel.app_secret, test_code=code,
    )  # fmt: skip
    try:
        status, answer = client.ask([encode(event, None)])
    except NoAnswer as failure:
        told = f"pixel {pixel.id}: no answer ({failure})"
        return Finding("sending", "error", told, meaning_of("")[1])
    finally:
        client.close()
    shown = f"pixel {pixel.id}: {EVENT_NAME}" + (" with a test_event_code" if code else "")
    given = answer if isinstance(answer, dict) else {}
    if given.get("events_received") == 1:
        told = f"{shown}: events_received 1, fbtrace_id {_word(given.get('fbtrace_id'))}"
        if not (messages := given.get("messages")):
            return Finding("sending", "ok", told)
        told += "; messages: " + "; ".join(map(_word, messages))
        return Finding("sending", "warning", told, "Read Meta's messages.")
    error = given.get("error")
    trace = error.get("fbtrace_id") if isinstance(error, dict) else None
    reason = judge(status, read_error(given)).reason
    meaning, fix = meaning_of(reason)
    told = f"{shown}: {meaning} ({reason}, fbtrace_id {_word(trace)})"
    return Finding("sending", "error", told, fix)


def _word(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() else repr(text)
