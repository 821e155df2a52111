"""check --url: a page of the site, as a browser gets it."""

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import urljoin

import httpx

from capi_middleware.cli.check import Finding, Row, flagged, those_that_hold
from capi_middleware.config.settings import Config
from capi_middleware.events import Count
from capi_middleware.page.csp import own_address, rule
from capi_middleware.report.flags import Facts

_LIMIT = 4 * 1024 * 1024
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
_NO_TAG = Finding(
    "tag", "error", "our script is not in the page",
    "Wrap the app with CAPIMiddleware as the outermost middleware but for one that compresses, "
    "restart it, and purge caches in front of it. The page must be HTML with a <head>, the "
    "visitor's consent not denied, and the policy must allow scripts of 'self'.",
)  # fmt: skip


def check_page(config: Config, url: str) -> Iterator[Finding]:
    """Get `url` like a browser without cookies, at most 4 MB of it, and look at it."""
    if re.match(r"https?://[^/\[\]]", url) is None:
        yield Finding("page", "error", "no http(s) address", "Give --url https://your.site/.")
        return
    with httpx.Client(
        headers=_HEADERS, timeout=10.0, follow_redirects=True, max_redirects=5, trust_env=False
    ) as client:
        try:
            with client.stream("GET", url) as response:
                html = _read(response)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            fix = "Check that the site runs and that this machine reaches it."
            yield Finding("page", "error", f"no answer ({type(failure).__name__})", fix)
            return
        address = str(response.url)
        kind = response.headers.get("content-type", "no content type")
        told = f"{address}: http {response.status_code}, {kind}"
        if response.status_code != 200 or "html" not in kind:
            fix = "Give the address of an HTML page that visitors see."
            yield Finding("page", "error", told, fix)
            return
        yield Finding("page", "ok", told)
        tag = re.search(rf'src="([^"]*{re.escape(config.prefix)}/s\.js\?v=[^"]*)"', html)
        if tag is not None:
            yield Finding("tag", "ok", f"our script is in the page, from {config.prefix}/s.js")
            yield _script(client, urljoin(address, tag[1]))
            yield _cache(response, html)
        else:
            yield _NO_TAG
    yield from those_that_hold(_others(config, _DATA.sub("", html)))
    yield from _policy(response, html)


def _read(response: httpx.Response) -> str:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _LIMIT:
            break
    return body[:_LIMIT].decode(response.encoding or "utf-8", "replace")


def _script(client: httpx.Client, address: str) -> Finding:
    try:
        answer = client.get(address, headers={"Accept": "*/*", "Sec-Fetch-Dest": "script"})
        status = f"http {answer.status_code}"
        good = answer.status_code == 200 and "javascript" in answer.headers.get("content-type", "")
    except httpx.HTTPError as failure:
        status, good = type(failure).__name__, False
    if good:
        return Finding("script", "ok", f"s.js: {status}")
    fix = "Let a CDN, firewall or login pass the prefix through."
    return Finding("script", "error", f"s.js: {status}", fix)


def _cache(response: httpx.Response, html: str) -> Finding:
    headers = response.headers
    said = headers.get("cache-control", "")
    shown = f"cache-control {said or 'is not set'}"
    data = _DATA.search(html)
    if data is None or re.search(r'"i":\s*"[tk]', data[1]) is None:
        return Finding("cache", "ok", f"the page asks for its event_ids when shown ({shown})")
    words = {word.strip().partition("=")[0].lower() for word in said.split(",")}
    shared = words & {"public", "s-maxage"} and not words & {"private", "no-store"}
    hit = headers.get("cf-cache-status") or headers.get("x-cache") or ""
    if not (shared or "hit" in hit.lower() or headers.get("age", "0").strip("0, ")):
        return Finding("cache", "ok", f"the page carries its event_ids, for one visitor ({shown})")
    return Finding(
        "cache", "error", f"a shared cache keeps this page with its event_ids ({shown})",
        "Let the app itself send Cache-Control: public on pages that a cache may share, so "
        "that their script asks for event_ids; or keep the cache from sharing this page.",
    )  # fmt: skip


def _others(config: Config, html: str) -> Iterator[Row]:
    ours = {one.id for one in config.pixels}
    ids = dict.fromkeys(_INIT.findall(html))
    for one in ids:
        yield (
            one in ours, "pixel", "warning", f"the page initialises our pixel {one} itself",
            "Its events of this page take our event_id; set mirror for the others, or remove "
            "the snippet.",
        )  # fmt: skip
        yield (
            one not in ours, "pixel", "ok", f"the page initialises another pixel {one} itself", "",
        )  # fmt: skip
    for container in dict.fromkeys(_GTM.findall(html)):
        yield (
            True, "pixel", "warning", f"a tag manager, {container}, may fire the pixel too",
            "Look for Meta tags in it: remove them, or set mirror.",
        )  # fmt: skip
    yield (
        not ids and _LIBRARY.search(html), "pixel", "warning",
        "the page loads Meta's library itself",
        "Look for the snippet that does: remove it, or set mirror.",
    )  # fmt: skip


def _policy(response: httpx.Response, html: str) -> list[Finding]:
    headers = response.headers
    enforced = headers.get_list("content-security-policy")
    enforced += [
        unescape(content[1] or content[2])
        for tag in _META.findall(html)
        if "content-security-policy" in tag.lower() and (content := _CONTENT.search(tag))
    ]
    if not enforced:
        return [Finding("csp", "ok", "the page has no Content-Security-Policy")]
    own = own_address(response.url.scheme, response.url.netloc.decode())
    ruling = rule(enforced, headers.get_list("content-security-policy-report-only"), own)
    counts = [Count("csp", note) for note in ruling.notes]
    if not ruling.allowed:
        counts.append(Count("skipped", "csp"))
    told = "the policy allows the tag, the pixel and the beacon"
    return flagged("csp", Facts(counts=counts)) or [Finding("csp", "ok", told)]
