"""check --url: a page of the site, as a browser gets it."""

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import urljoin

import httpx

from capi_middleware.cli.check import Finding, flagged, found
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


def check_page(config: Config, url: str) -> Iterator[Finding]:
    """Get `url` like a browser without cookies, at most 4 MB of it, and look at it."""
    if re.match(r"https?://[^/\[\]]", url) is None:
        yield found("page_address")
        return
    with httpx.Client(
        headers=_HEADERS, timeout=10.0, follow_redirects=True, max_redirects=5, trust_env=False
    ) as client:
        try:
            with client.stream("GET", url) as response:
                html = _read(response)
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            yield found("page_without_answer", failure=type(failure).__name__)
            return
        address = str(response.url)
        kind = response.headers.get("content-type", "no content type")
        is_page = response.status_code == 200 and "html" in kind
        told = f"{address}: http {response.status_code}, {kind}"
        yield found("page" if is_page else "no_page", told=told)
        if not is_page:
            return
        tag = re.search(rf'src="([^"]*{re.escape(config.prefix)}/s\.js\?v=[^"]*)"', html)
        if tag is not None:
            yield found("tag", prefix=config.prefix)
            yield _script(client, urljoin(address, tag[1]))
            yield _cache(response, html)
        else:
            yield found("no_tag")
    yield from _others(config, _DATA.sub("", html))
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
    return found("script" if good else "no_script", status=status)


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
    return found(name, said=said or "is not set")


def _others(config: Config, html: str) -> Iterator[Finding]:
    ours = {one.id for one in config.pixels}
    ids = dict.fromkeys(_INIT.findall(html))
    for one in ids:
        yield found("own_pixel" if one in ours else "other_pixel", id=one)
    for container in dict.fromkeys(_GTM.findall(html)):
        yield found("tag_manager", id=container)
    if not ids and _LIBRARY.search(html):
        yield found("library")


def _policy(response: httpx.Response, html: str) -> list[Finding]:
    headers = response.headers
    enforced = headers.get_list("content-security-policy")
    enforced += [
        unescape(content[1] or content[2])
        for tag in _META.findall(html)
        if "content-security-policy" in tag.lower() and (content := _CONTENT.search(tag))
    ]
    if not enforced:
        return [found("no_policy")]
    own = own_address(response.url.scheme, response.url.netloc.decode())
    ruling = rule(enforced, headers.get_list("content-security-policy-report-only"), own)
    counts = [Count("csp", note) for note in ruling.notes]
    if not ruling.allowed:
        counts.append(Count("skipped", "csp"))
    return flagged("csp", Facts(counts=counts)) or [found("policy")]
