"""check: is this setup right? All that can be looked at from here, with a fix for what is wrong.

What is said of it stands in findings.toml.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from itertools import islice
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

import click
import httpx
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.cli.terminal import JSON, config_of, print_json, print_line
from capi_middleware.config.notices import PASSING, filesystem_of, mounts, on_network
from capi_middleware.config.pixels import Pixel
from capi_middleware.config.routes import EventRoute
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError
from capi_middleware.events import Count, Event
from capi_middleware.meta.codes import judge, meaning_of, read_error
from capi_middleware.meta.graph import GraphClient
from capi_middleware.meta.http import NoAnswer
from capi_middleware.meta.payload import encode
from capi_middleware.meta.user_data import UserData
from capi_middleware.meta.versions import LAST_DAYS, NEWEST, version_at
from capi_middleware.page.csp import own_address, rule
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
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
}
_INIT = re.compile(r"""fbq\s*\(\s*['"]init['"]\s*,\s*['"]?(\d{1,26})""")
_GTM = re.compile(r"\bGTM-[A-Z0-9]{4,12}\b")
_META = re.compile(r"<meta\b[^>]*\bhttp-equiv\b[^>]*>", re.IGNORECASE)
_CONTENT = re.compile(r"""\bcontent\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_LIBRARY = re.compile(r"connect\.facebook\.net/[\w-]+/fbevents\.js")
_DATA = re.compile(r'<script type="application/json" data-c>(.*?)</script>', re.DOTALL)


class Finding(Struct, frozen=True):
    """One thing that was looked at: what was found, and the fix where something is wrong."""

    part: str
    level: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""


_FINDINGS = msgspec.toml.decode(
    Path(__file__).with_name("findings.toml").read_bytes(), type=dict[str, Finding]
)


def _found(name: str, /, **values: object) -> Finding:
    """The finding of this `name` in findings.toml, its text and its fix filled in."""
    one = _FINDINGS[name]
    return replace(one, text=one.text.format(**values), fix=one.fix.format(**values))


def _flagged(part: str, facts: Facts) -> list[Finding]:
    """What the report's flags say of these facts."""
    return [
        Finding(
            part, "error" if flag.severity == "critical" else "warning", flag.explanation, flag.fix
        )
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
    findings = []
    for one in _look(source, url, send or bool(code), code):
        findings.append(one)
        if not as_json:
            print_line(f"{one.level:<8} {one.part}: {one.text}")
            if one.fix:
                print_line(f"{'':<8} fix: {one.fix}")
    errors = any(one.level == "error" for one in findings)
    if as_json:
        print_json({"ok": not errors, "findings": findings})
    sys.exit(1 if errors else 0)


def _look(source: str, url: str | None, send: bool, code: str | None) -> Iterator[Finding]:
    try:
        config = config_of(source)
    except CapiError as failure:
        yield _found("config_broken", failure=failure)
        return
    pixels, routes = len(config.pixels), len(config.routes)
    yield _found("config", source=source, pixels=pixels, routes=routes)
    if Path(source).is_file():
        yield from _secrets(Path(source))
    yield from _keys(config)
    yield from _settings(config)
    for route in config.routes:
        yield _route(config, route)
    yield from _store(config)
    if send or _is_tested(config):
        for pixel in config.pixels:
            yield _send(config, pixel, code or pixel.test_event_code or config.test_event_code)
    if url:
        yield from _page(config, url)


# -- the configuration: it loads, so that what can never work is out already -----------------------


def _secrets(path: Path) -> Iterator[Finding]:
    """Secrets that stand in a capi.toml themselves."""
    data = msgspec.toml.decode(path.read_bytes())
    for prefix, table in [("", data), *(("pixels.", one) for one in data.get("pixels", []))]:
        for name in _SECRETS:
            value = table.get(name, "env:")
            values = value if isinstance(value, list) else [value]
            if not all(str(one).startswith("env:") for one in values):
                yield _found("secret_in_file", prefix=prefix, name=name, path=path)


def _keys(config: Config) -> Iterator[Finding]:
    for place, secret in enumerate(config.secrets):
        yield _found(
            "key" if len(set(secret)) >= 10 else "key_weak",
            length=len(secret),
            use="still verifies" if place else "signs",
            # Eight digits tell two keys apart and help nobody to guess one.
            mark=fingerprint(secret)[:8],
        )
    if os.environ.get("CAPI_SECRET_KEY", config.secrets[0]) not in config.secrets:
        yield _found("key_differs")


def _is_tested(config: Config) -> bool:
    return any((config.test_event_code, *(pixel.test_event_code for pixel in config.pixels)))


def _settings(config: Config) -> Iterator[Finding]:
    length = len(config.report_token or "")
    if not length:
        yield _found("report_open" if config.debug else "report_closed")
    else:
        name = "report" if length >= 16 else "report_token_short"
        yield _found(name, length=length, prefix=config.prefix)
    if _is_tested(config):
        yield _found("test_event_code")
    if config.graph_url.rstrip("/") != _GRAPH:
        yield _found("graph_url", url=config.graph_url)
    used = version_at(config.graph_version, time.time())
    name = "graph_version" if used.age_days is not None else "graph_version_unknown"
    if used.days_left is not None and used.days_left <= LAST_DAYS:
        name = "graph_version_ends" if used.days_left > 0 else "graph_version_ended"
    yield _found(name, used=used, newest=version_at(NEWEST, time.time()))
    if config.consent is None:
        yield _found("no_consent")
    for pixel in config.pixels:
        events = "all events" if pixel.events is None else ", ".join(pixel.events)
        yield _found("pixel" if events else "pixel_without_events", id=pixel.id, events=events)
    if not (config.routes or config.page_view or config.mirror):
        yield _found("no_route")


def _route(config: Config, route: EventRoute) -> Finding:
    """What is to be said of a route: the worst that holds."""
    excluded = next((one for one in config.exclude if route.path.text.startswith(one)), None)
    if excluded is not None:
        name = "route_excluded"
    elif route.method in _SILENT:
        name = "route_silent"
    elif route.event_name == "Purchase" and route.dedupe_key is None:
        name = "route_without_dedupe_key"
    else:
        name = "route"
    return _found(name, match=route.match, event=route.event_name, excluded=excluded,
                 method=route.method)  # fmt: skip


# -- the store: can it be opened and written, and does its disk keep what it is given? -------------


def _store(config: Config) -> Iterator[Finding]:
    kind, _, place = config.stores[0].partition(":///")
    kind = kind.partition(":")[0]
    try:
        store = open_store(config.store, queue_limit=config.queue_limit)
    except CapiError as failure:
        yield _found("store_not_opened", failure=failure)
        return
    with closing(store):
        try:
            depth = store.depth()
            store.keep(_PROBE, repr(time.time()).encode(), instead_of=store.kept(_PROBE))
            health = read_health(store, config)
        except CapiError as failure:
            yield _found("store_fails", kind=kind, failure=failure)
            return
    yield _found("store", kind=kind, n=sum(depth.values()))
    yield from _flagged("delivery", Facts(health=health))
    if kind == "memory":
        yield _found("store_forgets")
    elif kind == "sqlite":
        yield from _disk(Path(place))


def _disk(path: Path) -> Iterator[Finding]:
    kind = filesystem_of(path.absolute(), mounts())
    if on_network(kind):
        yield _found("disk_network", path=path, kind=kind)
    elif kind in PASSING:
        yield _found("disk_passing", path=path, kind=kind)
    elif kind == "overlay":
        yield _found("disk_container", path=path)
    free = shutil.disk_usage(path.absolute().parent).free
    if free < _LITTLE:
        yield _found("disk_full", free=free // 1024**2)


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
        meaning, fix = meaning_of(str(failure))
        return _found("not_sent", id=pixel.id, failure=failure, meaning=meaning, fix=fix)
    finally:
        client.close()
    shown = f"pixel {pixel.id}: {EVENT_NAME}" + (" with a test_event_code" if code else "")
    given = answer if isinstance(answer, dict) else {}
    if given.get("events_received") == 1:
        messages = "; ".join(map(_word, given.get("messages") or ()))
        name = "sent_with_messages" if messages else "sent"
        return _found(name, shown=shown, trace=_word(given.get("fbtrace_id")), messages=messages)
    error = given.get("error")
    trace = error.get("fbtrace_id") if isinstance(error, dict) else None
    reason = judge(status, read_error(given)).reason
    meaning, fix = meaning_of(reason)
    return _found("refused", shown=shown, meaning=meaning, reason=reason, trace=_word(trace),
                 fix=fix)  # fmt: skip


def _word(value: object) -> str:
    text = str(value)[:200]
    return text if text.isprintable() else repr(text)


# -- a page of the site, as a browser gets it ------------------------------------------------------


def _page(config: Config, url: str) -> Iterator[Finding]:
    """Get `url` like a browser without cookies, at most 4 MB of it, and look at it."""
    if re.match(r"https?://[^/\[\]]", url) is None:
        yield _found("page_address")
        return
    with httpx.Client(
        headers=_HEADERS, timeout=10.0, follow_redirects=True, max_redirects=5, trust_env=False
    ) as client:
        try:
            with client.stream("GET", url) as response:
                body = b"".join(islice(response.iter_bytes(1024 * 1024), 4))
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            yield _found("page_without_answer", failure=type(failure).__name__)
            return
        html = body.decode(response.encoding or "utf-8", "replace")
        address = str(response.url)
        kind = response.headers.get("content-type", "no content type")
        is_page = response.status_code == 200 and "html" in kind
        told = f"{address}: http {response.status_code}, {kind}"
        yield _found("page" if is_page else "no_page", told=told)
        if not is_page:
            return
        tag = re.search(rf'src="([^"]*{re.escape(config.prefix)}/s\.js\?v=[^"]*)"', html)
        if tag is not None:
            yield _found("tag", prefix=config.prefix)
            yield _script(client, urljoin(address, tag[1]))
            yield _cache(response, html)
        else:
            yield _found("no_tag")
    yield from _others(config, _DATA.sub("", html))
    yield from _policy(response, html)


def _script(client: httpx.Client, address: str) -> Finding:
    try:
        answer = client.get(address, headers={"Accept": "*/*", "Sec-Fetch-Dest": "script"})
        status = f"http {answer.status_code}"
        good = answer.status_code == 200 and "javascript" in answer.headers.get("content-type", "")
    except httpx.HTTPError as failure:
        status, good = type(failure).__name__, False
    return _found("script" if good else "no_script", status=status)


def _cache(response: httpx.Response, html: str) -> Finding:
    headers = response.headers
    said = headers.get("cache-control", "")
    data = _DATA.search(html)
    words = {word.strip().partition("=")[0].lower() for word in said.split(",")}
    shared = words & {"public", "s-maxage"} and not words & {"private", "no-store"}
    hit = headers.get("cf-cache-status") or headers.get("x-cache") or ""
    if data is None or re.search(r'"i":\s*"[tk]', data[1]) is None:
        name = "cache_asks"
    elif shared or "hit" in hit.lower() or headers.get("age", "0").strip("0, "):
        name = "cache_shared"
    else:
        name = "cache_private"
    return _found(name, said=said or "is not set")


def _others(config: Config, html: str) -> Iterator[Finding]:
    ours = {one.id for one in config.pixels}
    ids = dict.fromkeys(_INIT.findall(html))
    for one in ids:
        yield _found("own_pixel" if one in ours else "other_pixel", id=one)
    for container in dict.fromkeys(_GTM.findall(html)):
        yield _found("tag_manager", id=container)
    if not ids and _LIBRARY.search(html):
        yield _found("library")


def _policy(response: httpx.Response, html: str) -> list[Finding]:
    headers = response.headers
    enforced = headers.get_list("content-security-policy")
    enforced += [
        unescape(content[1] or content[2])
        for tag in _META.findall(html)
        if "content-security-policy" in tag.lower() and (content := _CONTENT.search(tag))
    ]
    if not enforced:
        return [_found("no_policy")]
    own = own_address(response.url.scheme, response.url.netloc.decode())
    ruling = rule(enforced, headers.get_list("content-security-policy-report-only"), own)
    counts = [Count("csp", note) for note in ruling.notes]
    if not ruling.allowed:
        counts.append(Count("skipped", "csp"))
    return _flagged("csp", Facts(counts=counts)) or [_found("policy")]
