"""check: is this setup right? All that can be looked at from here, with a fix for what is wrong."""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

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
from capi_middleware.store.store import Store

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


class Finding(Struct, frozen=True):
    """One thing that was looked at: what was found, and the fix where something is wrong."""

    part: str
    level: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""


def flagged(part: str, facts: Facts) -> list[Finding]:
    """What the report's flags say of these facts."""
    return [
        Finding(part, "error" if flag.severity == "critical" else "warning", flag.explanation,
                flag.fix)
        for flag in flags_of(facts)
    ]  # fmt: skip


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
        yield from _file(Path(source))
    yield from _keys(config)
    yield from _settings(config)
    yield from (_route(config, route) for route in config.routes)
    yield from _store(config)
    tested = config.test_event_code or any(one.test_event_code for one in config.pixels)
    if send or tested:
        for pixel in config.pixels:
            yield _send(config, pixel, code or pixel.test_event_code or config.test_event_code)
    if url:
        from capi_middleware.cli.check_page import check_page

        yield from check_page(config, url)


# -- the configuration: it loads, so that what can never work is out already -----------------------


def _file(path: Path) -> Iterator[Finding]:
    """Secrets that stand in a capi.toml themselves."""
    data = msgspec.toml.decode(path.read_bytes())
    for prefix, table in [("", data), *(("pixels.", one) for one in data.get("pixels", []))]:
        for name in _SECRETS:
            value = table.get(name, "env:")
            values = value if isinstance(value, list) else [value]
            if not all(str(one).startswith("env:") for one in values):
                fix = f'Write {name} = "env:NAME" and set NAME in the environment.'
                told = f"{prefix}{name} stands in {path} itself"
                yield Finding("secrets", "warning", told, fix)


def _keys(config: Config) -> Iterator[Finding]:
    for place, secret in enumerate(config.secrets):
        # Eight digits tell two keys apart and help nobody to guess one.
        mark = fingerprint(secret)[:8]
        which = "signs" if place == 0 else "still verifies"
        text = f"{len(secret)} characters, {which}, fingerprint {mark} (the same on every machine)"
        if len(set(secret)) >= 10:
            yield Finding("secret_key", "ok", text)
        else:
            yield Finding(
                "secret_key", "warning", f"{text}; few different characters",
                "Make a random one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )  # fmt: skip
    here = os.environ.get("CAPI_SECRET_KEY")
    if here is not None and here not in config.secrets:
        yield Finding(
            "secret_key", "warning",
            "the configuration has another one than this environment's CAPI_SECRET_KEY",
            'Use one for all: secret_key = "env:CAPI_SECRET_KEY". Processes with different keys '
            "do not believe each other's event_ids.",
        )  # fmt: skip


def _settings(config: Config) -> Iterator[Finding]:
    token, pixels = config.report_token, config.pixels
    if token is None and not config.debug:
        yield Finding("report", "ok", "without a report_token the report is not served")
    elif token is None:
        fix = "Set debug to false in production."
        yield Finding("report", "warning", "debug serves the report to everybody", fix)
    elif len(token) < 16:
        told = f"a report_token of {len(token)} characters"
        yield Finding("report", "warning", told, "Make a longer one.")
    else:
        yield Finding("report", "ok", f"served at {config.prefix}/parity")
    if config.test_event_code or any(one.test_event_code for one in pixels):
        told = "set: all events show up in Test Events, and count as well"
        yield Finding("test_event_code", "warning", told, "Remove it when the test is over.")
    if config.graph_url.rstrip("/") != _GRAPH:
        told = f"events go to {config.graph_url}, not to Meta"
        yield Finding("graph_url", "warning", told, "Remove graph_url, unless this is a test.")
    if config.consent is None:
        yield Finding("consent", "ok", "everybody is tracked: no consent rule is set")
    for pixel in pixels:
        names = "all events" if pixel.events is None else ", ".join(pixel.events) or "no event"
        none = pixel.events is not None and not pixel.events
        fix = "Leave events out, or list some." if none else ""
        yield Finding("pixel", "warning" if none else "ok", f"{pixel.id} takes {names}", fix)
    if not config.routes and not config.page_view and not config.mirror:
        told = "no route, no page_view and no mirror: only track() makes events"
        yield Finding("routes", "warning", told, "Add [[routes]], or leave page_view on.")


def _route(config: Config, route: EventRoute) -> Finding:
    text = f"{route.match} → {route.event_name}"
    excluded = next((one for one in config.exclude if route.path.text.startswith(one)), None)
    if excluded is not None:
        told = f"{text} can never match: exclude has {excluded!r}"
        return Finding("route", "error", told, "Remove the route, or the path from exclude.")
    if route.method in _SILENT:
        told = f"{text} never counts: {route.method} shows no page"
        return Finding("route", "error", told, "Name the method of the request that is the event.")
    if route.event_name == "Purchase" and route.dedupe_key is None:
        told = f"{text} has no dedupe_key: a refreshed page counts twice"
        fix = 'Add a dedupe_key such as "{path.order_id}", or give one to track().'
        return Finding("route", "warning", told, fix)
    return Finding("route", "ok", text)


# -- the store: can it be opened and written, and does its disk keep what it is given? -------------


def _store(config: Config) -> Iterable[Finding]:
    try:
        store = open_store(config.store, queue_limit=config.queue_limit)
    except CapiError as failure:
        return [Finding("store", "error", str(failure), "Make the directory, or name another.")]
    try:
        return list(_opened(config, store))
    finally:
        store.close()


def _opened(config: Config, store: Store) -> Iterator[Finding]:
    kind, _, place = config.store.partition(":///")
    kind = kind.partition(":")[0]
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
        yield from _disk(Path(place))


def _disk(path: Path) -> Iterator[Finding]:
    kind = filesystem_of(path.absolute(), mounts())
    if on_network(kind):
        yield Finding(
            "store", "error",
            f"{path} lies on a network file system ({kind}): SQLite's locks and its write-ahead "
            "log do not work there",
            "Put the file on a local disk, or use postgresql:// for several machines.",
        )  # fmt: skip
    elif kind in PASSING:
        told = f"{path} lies in memory ({kind}): lost at a reboot"
        yield Finding("store", "warning", told, "Put the file on a disk.")
    elif kind == "overlay":
        told = f"{path} lies in the container: lost with it"
        yield Finding("store", "warning", told, "Put the file on a volume.")
    free = shutil.disk_usage(path.absolute().parent).free
    if free < _LITTLE:
        fix = "Make room: a full disk holds events back in memory."
        yield Finding("store", "warning", f"{free // 1024**2:,} MB are free on its disk", fix)


# -- a test event to Meta, and what its answer means -----------------------------------------------


def _send(config: Config, pixel: Pixel, code: str | None) -> Finding:
    event = Event(
        event_id=Minter(config.secrets).mint(EVENT_NAME, time.time()),
        event_name=EVENT_NAME,
        event_time=time.time(),
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
    return _explain(shown, status, answer if isinstance(answer, dict) else {})


def _explain(shown: str, status: int, answer: dict[str, Any]) -> Finding:
    if answer.get("events_received") == 1:
        told = f"{shown}: events_received 1, fbtrace_id {_word(answer.get('fbtrace_id'))}"
        messages = answer.get("messages") or []
        if not messages:
            return Finding("sending", "ok", told)
        told += "; messages: " + "; ".join(map(_word, messages))
        return Finding("sending", "warning", told, "Read Meta's messages.")
    given = answer.get("error")
    trace = given.get("fbtrace_id") if isinstance(given, dict) else None
    reason = judge(status, read_error(answer)).reason
    meaning, fix = meaning_of(reason)
    told = f"{shown}: {meaning} ({reason}, fbtrace_id {_word(trace)})"
    return Finding("sending", "error", told, fix)


def _word(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() else repr(text)
