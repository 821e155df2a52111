"""check: is this setup right? All that can be looked at from here, with a fix for what is wrong.

What is said of it stands in findings.toml.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin, urlsplit

import click
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from capi_middleware.capture.banners import banners_in
from capi_middleware.capture.identity import cookie_domain
from capi_middleware.cli.source import compressors, site_of
from capi_middleware.cli.terminal import CONFIGURATION, JSON, WRONG, plain, print_json, print_line
from capi_middleware.config.notices import PASSING, filesystem_of, mounts, on_network
from capi_middleware.config.pixels import Pixel
from capi_middleware.config.routes import EventRoute
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError
from capi_middleware.events import Count, Event
from capi_middleware.meta.codes import judge, meaning_of, read_error
from capi_middleware.meta.custom_data import clean, lacking
from capi_middleware.meta.graph import GraphClient
from capi_middleware.meta.http import STEP_SECONDS, Answer, HTTPClient, NoAnswer
from capi_middleware.meta.payload import encode
from capi_middleware.meta.user_data import UserData
from capi_middleware.meta.versions import LAST_DAYS, NEWEST, version_at
from capi_middleware.page.csp import integrity, own_address, rule
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
# No part of it can start in the middle of another: a page may be anything.
_META = re.compile(r"<meta\b[^<>]*>", re.IGNORECASE)
_CONTENT = re.compile(r"""\bcontent\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_LIBRARY = re.compile(r"connect\.facebook\.net/[\w-]+/fbevents\.js")
_OPENING = '<script type="application/json" data-c>'
#: What looking at a page takes at the most: seconds in all with a step that is under way then,
#: bytes of each file, redirects.
_SECONDS, _MOST_BYTES, _MOST_REDIRECTS = 20.0 - STEP_SECONDS, 2 * 1024 * 1024, 6


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
    text, fix = plain(one.text.format(**values)), plain(one.fix.format(**values))
    return replace(one, text=text, fix=fix)


def _flagged(part: str, facts: Facts) -> list[Finding]:
    """What the report's flags say of these facts."""
    return [
        Finding(
            part, "error" if flag.severity == "critical" else "warning", flag.explanation, flag.fix
        )
        for flag in flags_of(facts)
    ]


@click.command(short_help="Look at the settings, the store, Meta's answer and a page.")
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
    errors = [one for one in findings if one.level == "error"]
    if as_json:
        print_json({"ok": not errors, "findings": findings})
    broken = any(one.part == "config" for one in errors)
    sys.exit(CONFIGURATION if broken else WRONG if errors else 0)


def _look(source: str, url: str | None, send: bool, code: str | None) -> Iterator[Finding]:
    try:
        config, layers = site_of(source)
    except CapiError as failure:
        yield _found("config_broken", failure=failure)
        return
    pixels = len(config.fixed_pixels) if config.tenant is None else "each tenant's"
    routes = len(config.routes)
    yield _found("config", source=source, pixels=pixels, routes=routes)
    if Path(source).is_file():
        yield from _secrets(Path(source))
    yield from _keys(config)
    yield from _settings(config)
    for route in config.routes:
        yield _route(config, route)
        data = route.custom_data or {}
        # Of what a request fills in nothing is known here.
        fixed = {key: one for key, one in data.items() if "{" not in str(one)}
        bad = fixed.keys() - clean("", {"value": 1, "currency": "EUR"} | fixed)[0].keys()
        if without := lacking(route.event_name, {key: data[key] for key in data.keys() - bad}):
            missing = [f"usable {one}" if one in bad else one for one in without]
            yield _found("route_without_value", match=route.match, event=route.event_name,
                         missing=" and no ".join(missing))  # fmt: skip
    for name, is_outside in compressors(layers):
        yield _found("compressor" if is_outside else "compressor_inside", name=name)
    yield from _store(config)
    if send or _is_tested(config):
        for pixel in config.fixed_pixels:
            yield _send(config, pixel, code or _test_code(config, pixel))
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
        # Eight digits tell two keys apart and help nobody to guess one.
        mark, use = fingerprint(secret)[:8], "still verifies" if place else "signs"
        yield _found("key", length=len(secret), use=use, mark=mark)
    if os.environ.get("CAPI_SECRET_KEY", config.secrets[0]) not in config.secrets:
        yield _found("key_differs")


def _test_code(config: Config, pixel: Pixel) -> str | None:
    """The test_event_code that a pixel's events have now."""
    code, until = config.test_event(pixel)
    return code if time.time() < until else None


def _is_tested(config: Config) -> bool:
    return any(_test_code(config, pixel) for pixel in config.fixed_pixels)


def _settings(config: Config) -> Iterator[Finding]:
    if config.report_token is None:
        yield _found("report_open" if config.debug else "report_closed")
    else:
        yield _found("report", prefix=config.prefix)
    if _is_tested(config):
        yield _found("test_event_code")
    if config.graph_url.rstrip("/") != _GRAPH:
        yield _found("graph_url", url=config.graph_url)
    used = version_at(config.graph_version, time.time())
    name = "graph_version" if used.age_days is not None else "graph_version_unknown"
    if used.days_left is not None and used.days_left <= LAST_DAYS:
        name = "graph_version_ends" if used.days_left > 0 else "graph_version_ended"
    yield _found(name, used=used, newest=version_at(NEWEST, time.time()))
    if not config.hosts:
        yield _found("no_hosts")
    if config.consent is None:
        yield _found("no_consent")
    for pixel in config.fixed_pixels:
        events = "all events" if pixel.events is None else ", ".join(pixel.events)
        yield _found("pixel" if events else "pixel_without_events", id=pixel.id, events=events)
    if not (config.routes or config.page_view or config.mirror):
        yield _found("no_route")


def _route(config: Config, route: EventRoute) -> Finding:
    """What is to be said of a route: the worst that holds."""
    path = f"{route.path.text}/"
    excluded = next((one for one in config.excluded if path.startswith(one)), None)
    if excluded is not None:
        name = "route_excluded"
    elif route.method in _SILENT:
        name = "route_silent"
    elif route.event_name == "Purchase" and route.dedupe_key is None:
        name = "route_without_dedupe_key"
    elif route.dedupe_key is not None and "dedupe_key" in route.constants:
        name = "route_of_one_event"
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
    where = f"{kind} {Path(place).absolute()}" if kind == "sqlite" else kind
    yield _found("store", place=where, n=sum(depth.values()))
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
        status, answer = client.ask([encode(event, None, "system_generated")])
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
    return plain(str(value)[:200])


# -- a page of the site, as a browser gets it ------------------------------------------------------


def _page(config: Config, url: str) -> Iterator[Finding]:
    """Get `url` like a browser without cookies, and look at it. All of it takes _SECONDS."""
    if re.match(r"https?://[^/\[\]]", url) is None:
        yield _found("page_address")
        return
    end = time.monotonic() + _SECONDS
    try:
        url, answer = _follow(url, end)
    except _ElsewhereError as failure:
        yield _found("page_elsewhere", host=failure)
        return
    except (NoAnswer, ValueError) as failure:
        yield _found("page_without_answer", failure=failure)
        return
    html = _text(answer)
    kind = answer.headers.get("content-type", "no content type")
    is_page = answer.status == 200 and "html" in kind
    yield _found("page" if is_page else "no_page", told=f"{url}: http {answer.status}, {kind}")
    if not is_page:
        return
    start = html.find(_OPENING)
    stop = html.find("</script>", start)
    data = html[start:stop] if 0 <= start < stop else ""
    script = re.compile(rf'src="([^"]*{re.escape(config.prefix)}/s\.js\?v=[^"]*)"')
    if (tag := script.search(html)) is not None:
        yield _found("tag", prefix=config.prefix)
        yield _script(url, tag[1], end)
        yield from _compressed(url, script, end)
        yield _cache(answer.headers, data)
    else:
        yield _found("no_tag")
    yield from _others(config, html.replace(data, "", 1))
    yield from _banner(config, html)
    yield from _policy(url, answer.headers, html)


class _ElsewhereError(Exception):
    """The site sends its visitors to a host of another."""


def _follow(url: str, end: float) -> tuple[str, Answer]:
    """Where redirects within one site lead, and the answer there."""
    first = url
    for _ in range(_MOST_REDIRECTS):
        answer = _get(url, end, {})
        place = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not place:
            break
        url = urljoin(url, place)
        if not _is_within(url, first):
            raise _ElsewhereError(urlsplit(url).hostname)
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), answer


def _is_within(url: str, site: str) -> bool:
    """Whether an address is one of the same site: of its registrable domain, at its port."""
    (one, port), (other, other_port) = map(_place, (url, site))
    usual = {port, other_port} <= {80, 443}
    same = one == other or (cookie_domain(one) or "") == (cookie_domain(other) or one)
    return same and (usual or port == other_port)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _get(url: str, end: float, headers: Mapping[str, str]) -> Answer:
    with closing(HTTPClient(_MOST_BYTES)) as client:
        left = max(0.1, end - time.monotonic())
        return client.send("GET", url, seconds=left, headers={**_HEADERS, **headers})


def _text(answer: Answer) -> str:
    named = re.search(r"charset=[\"']?([\w.-]{1,40})", answer.headers.get("content-type", ""))
    try:
        return answer.body.decode(named[1] if named else "utf-8", "replace")
    except (LookupError, ValueError):  # no such charset, or none of text
        return answer.body.decode("utf-8", "replace")


def _script(page: str, source: str, end: float) -> Finding:
    try:
        address = urljoin(page, unescape(source))
        if not _is_within(address, page):
            return _found("no_script", status="another site's address")
        answer = _get(address, end, {"Accept": "*/*", "Sec-Fetch-Dest": "script"})
        status = f"http {answer.status}"
        good = answer.status == 200 and "javascript" in answer.headers.get("content-type", "")
    except (NoAnswer, ValueError) as failure:
        status, good = str(failure), False
    return _found("script" if good else "no_script", status=status)


def _compressed(url: str, script: re.Pattern[str], end: float) -> Iterator[Finding]:
    """Whether the script is in the page as well as a browser gets it that takes br and zstd."""
    try:
        answer = _get(url, end, {"Accept-Encoding": "gzip, deflate, br, zstd"})
    except NoAnswer:
        return
    encoding, html = answer.headers.get("content-encoding", ""), _text(answer)
    opened = re.search(r"<(html|head|body|!doctype)\b", html, re.IGNORECASE)
    name = "page_compressed_before" if opened else "page_closed"
    if script.search(html):
        name = "page_compressed"
    if encoding and answer.status == 200:
        yield _found(name, encoding=encoding)


def _cache(headers: Mapping[str, str], data: str) -> Finding:
    said = headers.get("cache-control", "")
    words = {word.strip().partition("=")[0].lower() for word in said.split(",")}
    shared = words & {"public", "s-maxage"} and not words & {"private", "no-store"}
    hit = headers.get("cf-cache-status") or headers.get("x-cache") or ""
    if re.search(r'"i":\s*"[tk]', data) is None:
        name = "cache_asks"
    elif shared or "hit" in hit.lower() or headers.get("age", "0").strip("0, "):
        name = "cache_shared"
    else:
        name = "cache_private"
    return _found(name, said=said or "is not set")


def _others(config: Config, html: str) -> Iterator[Finding]:
    ours = {one.id for one in config.fixed_pixels}
    ids = dict.fromkeys(_INIT.findall(html))
    for one in ids:
        yield _found("own_pixel" if one in ours else "other_pixel", id=one)
    for container in dict.fromkeys(_GTM.findall(html)):
        yield _found("tag_manager", id=container)
    if not ids and _LIBRARY.search(html):
        yield _found("library")


def _banner(config: Config, html: str) -> Iterator[Finding]:
    """Which consent banner the page has, and whether the rule reads what it says."""
    seen, consent = list(banners_in(html)), config.consent
    named = consent.get("rule") if isinstance(consent, Mapping) else consent
    told = ", ".join(seen)
    if not seen:
        yield _found("no_banner")
    elif consent is None:
        yield _found("banner_unheard", told=told, rule=seen[0])
    elif not isinstance(named, str):
        yield _found("banner", told=told, rule="your own")
    elif named in seen or named == "google":
        yield _found("banner", told=told, rule=f'"{named}"')
    else:
        yield _found("banner_other", told=told, rule=named, fitting=seen[0])


def _policy(url: str, headers: Mapping[str, str], html: str) -> list[Finding]:
    enforced = [
        unescape(content[1] or content[2])
        for tag in _META.findall(html)
        if "http-equiv" in tag.lower()
        and "content-security-policy" in tag.lower()
        and (content := _CONTENT.search(tag))
    ]
    enforced += filter(None, [headers.get("content-security-policy")])
    enforced += integrity(headers.get("integrity-policy", ""))
    if not enforced:
        return [_found("no_policy")]
    parts = urlsplit(url)
    reported = headers.get("content-security-policy-report-only")
    ruling = rule(enforced, [reported] if reported else [], own_address(parts.scheme, parts.netloc))
    counts = [Count("csp", note) for note in ruling.notes]
    if not ruling.allowed:
        counts.append(Count("skipped", "csp"))
    return _flagged("csp", Facts(counts=counts)) or [_found("policy")]
