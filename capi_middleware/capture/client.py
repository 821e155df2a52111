"""The client is who asks: from where, how it calls the site, and whether it is a visit at all."""

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from msgspec import Struct

from capi_middleware.errors import ConfigError
from capi_middleware.meta.normalising import LONGEST_IP, Address, ip_of, public
from capi_middleware.private import Private

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: In the scope: header values by name as text, where a door has them at hand.
HEADERS = "capi_middleware.headers"
_PORT = re.compile(r":\d*\Z")
_COOKIES_THERE = re.compile(r"[?&]_capi=([^&?#]*)\Z")
_ORIGIN = re.compile(r"https?://([^/?#\\@]{1,253})(?=[/?#]|\Z)")
#: What another site can make a browser fetch or frame, without the visitor going there.
_IN_A_PAGE = frozenset({"empty", "iframe", "frame", "fencedframe"})
_USUAL_PORTS = (":80", ":443")
#: How much of a header is looked at.
HEADER_READ = 8192
#: How much of a user agent is looked at, and how much is kept: browsers and crawlers have said who
#: they are by then.
AGENT_READ, AGENT_KEPT = 400, 1024
#: In what header CDNs tell the visitor's country: Cloudflare, CloudFront, Vercel, App Engine, and
#: whoever writes it by a rule of his own (Fastly, nginx with GeoIP). What they say of nowhere.
_COUNTRIES = (
    "cf-ipcountry", "cloudfront-viewer-country", "x-vercel-ip-country", "x-appengine-country",
    "x-country-code",
)  # fmt: skip
_NO_COUNTRY = ("XX", "ZZ")
_FORWARDED_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*("[^"]*"|[^;,"\s]+)\s*')
_PREFETCH_HEADERS = frozenset({"purpose", "sec-purpose", "x-sec-purpose", "x-moz", "x-purpose"})
#: Of libraries that fetch a page when the mouse is over its link: htmx's preload and Turbo 7 say
#: so; Unpoly, swup and barba do not tell it from a click, so their pages wait until they are shown.
_PRELOADERS = frozenset({"hx-preloaded", "vnd.prefetch", "x-up-version", "x-barba"})
_PREFETCH_WORDS = re.compile("prefetch|prerender|preview", re.IGNORECASE)
#: What a browser asks for beside pages (Sec-Fetch-Dest): a catch-all view answers /favicon.ico too.
_SUBRESOURCES = frozenset(
    {"audio", "embed", "font", "image", "manifest", "object", "paintworklet", "audioworklet",
     "report", "script", "serviceworker", "sharedworker", "style", "track", "video", "worker",
     "xslt", "json"}
)  # fmt: skip
#: Kinds in the list that are no crawlers, the app's own clients and tests; and browsers that a
#: program drives: to them Meta's script sends nothing either.
_CLIENTS, _DRIVEN = "http-library", "browser-automation"
_HEALTH_AGENT = re.compile(
    r"kube-probe/|ELB-HealthChecker/|GoogleHC/|Consul Health Check|Amazon-Route53-Health|"
    r"health[ _-]?check",
    re.IGNORECASE,
)
_HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/healthcheck", "/health-check"})


def headers_of(scope: Mapping[str, Any]) -> Mapping[str, str]:
    """Header values of an ASGI http scope by name in lower case; repeated ones joined as HTTP says.

    A door that has them as text already puts them into the scope as HEADERS. Of each no more than
    HEADER_READ is looked at, as most servers and proxies take no longer ones.
    """
    given: Mapping[str, str] | None = scope.get(HEADERS)
    if given is not None:
        return given
    joined: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in joined:
            value = joined[name] + ("; " if name == "cookie" else ", ") + value
        joined[name] = value if len(value) <= HEADER_READ else cut(name, value)
    return joined


def cut(name: str, value: str) -> str:
    """What is looked at of a header's value: whole cookies, and what the last proxies say."""
    if "forwarded" in name:
        return value[-HEADER_READ:]
    kept = value[:HEADER_READ]
    return kept.rpartition(";")[0] if name == "cookie" else kept


def page_origin(headers: Mapping[str, str]) -> str:
    """The origin of the page that made the browser ask, "" where no header tells it."""
    said = _ORIGIN.match(headers.get("origin") or headers.get("referer", ""))
    return said[0] if said is not None else ""


def told_there(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers of a call with the cookies that its page says in the Referer; see foreign.js.

    For a page of another origin, which the cookies of this one do not know.
    """
    referer = headers.get("referer", "")
    found = _COOKIES_THERE.search(referer)
    if found is None:
        return headers
    told = {**headers, "referer": referer[: found.start()]}
    cookies, known = unquote(found[1]), headers.get("cookie")
    if cookies.isprintable():
        told["cookie"] = f"{known}; {cookies}" if known else cookies
    return told


class Hosts(NamedTuple):
    """The site's own hosts, in lower case; without any all are. `below` are as ".shop.example".

    `origins` are those of its pages that the app does not answer.
    """

    names: frozenset[str] = frozenset()
    below: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hosts: Sequence[str], origins: Sequence[str] = ()) -> "Hosts":
        """From names; one that starts with a dot stands for all hosts below it, and itself."""
        given = [host.lower() for host in hosts]
        dotted = tuple(one for one in given if one.startswith("."))
        if given:
            given += [_PORT.sub("", one.partition("://")[2]) for one in origins]
        return cls(frozenset(one.removeprefix(".") for one in given), dotted, frozenset(origins))

    def has(self, host: str) -> bool:
        """Whether a Host, perhaps with a port, is one of them."""
        name = _PORT.sub("", host.lower())
        return not self.names or name in self.names or name.endswith(self.below)

    def speak(self, headers: Mapping[str, str]) -> bool:
        """Whether a page of theirs made the browser ask: known where they are named."""
        origin = page_origin(headers)
        return bool(origin) and self.own(origin, origin.partition("://")[2])

    def own(self, origin: str, host: str) -> bool:
        """Whether a page of this origin and `host` is the site's, as far as they are named."""
        return origin in self.origins or (bool(self.names) and self.has(host))


class Proxies(NamedTuple):
    """The proxies that are believed. `unix`: also what comes through a socket without address."""

    networks: Sequence[Network] = ()
    unix: bool = False

    @classmethod
    def of(cls, trusted: Sequence[str]) -> "Proxies":
        """From networks in CIDR notation, or "unix". Raises ConfigError for anything else."""
        try:
            networks = [ipaddress.ip_network(one, strict=False) for one in trusted if one != "unix"]
        except ValueError:
            raise ConfigError(
                "trusted_proxies: found no network, expected some such as '10.0.0.0/8', or 'unix'"
            ) from None
        return cls(networks, "unix" in trusted)


class Client(Private, Struct, frozen=True):
    """`ip`: the visitor's public address or None. `scheme` and `host`: as the browser sees them.

    `country`: two letters (ISO 3166) where a trusted proxy tells it, else "".
    """

    ip: str | None
    scheme: str
    host: str
    country: str = ""


def read_client(
    peer: str | None, scheme: str, headers: Mapping[str, str], proxies: Proxies
) -> Client:
    """What the connection says, or what trusted proxies say about it.

    X-Forwarded-For, else Forwarded (RFC 7239), is read from the right, past trusted hops; its
    entries further left are what anybody may write, and so is all but the last of X-Forwarded-Host
    and -Proto. Header names are in lower case.
    """
    host = headers.get("host", "")
    if host.endswith(_USUAL_PORTS):
        host = without_port(host)
    if not (proxies.networks or proxies.unix):
        return Client(_public_ip((peer or "")[:LONGEST_IP]), scheme, host)
    address, hop = _farthest(peer, headers, proxies)
    if hop is None:
        return Client(public(address), scheme, host)
    scheme, host = hop.get("proto", scheme), hop.get("host", host)
    scheme = _last(headers, "x-forwarded-proto") or scheme
    host = without_port(_last(headers, "x-forwarded-host") or host)
    scheme = "https" if scheme.lower() in ("https", "wss") else "http"
    return Client(public(address), scheme, host, _country_in(headers))


def _country_in(headers: Mapping[str, str]) -> str:
    told = next((headers[name] for name in _COUNTRIES if name in headers), "").upper()
    known = len(told) == 2 and told.isascii() and told.isalpha() and told not in _NO_COUNTRY
    return told if known else ""


def agent_in(headers: Mapping[str, str]) -> str | None:
    """How the client calls itself, as far as it is kept; its name may be in any script."""
    agent = headers.get("user-agent")
    if agent and not agent.isascii():
        with suppress(UnicodeError):  # it may be Latin-1
            agent = agent.encode("latin-1").decode()
    return agent and agent[:AGENT_KEPT]


def address_of(peer: str | None, headers: Mapping[str, str], proxies: Proxies) -> Address | None:
    """The address that read_client finds, be it that of a visitor or of the site's own network."""
    return _farthest(peer, headers, proxies)[0]


def _farthest(
    peer: str | None, headers: Mapping[str, str], proxies: Proxies
) -> tuple[Address | None, Mapping[str, str] | None]:
    """The last address that can be believed, and its hop; None where no proxy is believed."""
    address = ip_of((peer or "")[:LONGEST_IP])
    believed = proxies.unix if address is None and not peer else _trusted(address, proxies)
    if not believed:
        return address, None
    for hop in _hops(headers):
        address = ip_of(hop.get("for", ""))
        if not _trusted(address, proxies):
            return address, hop
    return address, {}


def without_port(host: str) -> str:
    """A Host in lower case, without the port that browsers leave out and proxies write.

    nginx has `Host $host:$server_port`, and the port may be that of a hop without TLS.
    """
    host = host.lower()
    for port in _USUAL_PORTS:
        host = host.removesuffix(port)
    return host


def _hops(headers: Mapping[str, str]) -> list[Mapping[str, str]]:
    """The hops, the nearest first."""
    if forwarded_for := headers.get("x-forwarded-for"):
        return [{"for": one} for one in reversed(forwarded_for.split(","))]
    hops: list[Mapping[str, str]] = []
    for element in headers.get("forwarded", "").split(","):
        pairs = (_FORWARDED_PAIR.fullmatch(pair) for pair in element.split(";"))
        hop = {pair[1].lower(): pair[2].strip('"') for pair in pairs if pair}
        if hop:
            hops.append(hop)
    return hops[::-1]


def _last(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").rpartition(",")[2].strip()


def _trusted(address: Address | None, proxies: Proxies) -> bool:
    return address is not None and any(address in network for network in proxies.networks)


@lru_cache(maxsize=1024)
def _public_ip(text: str) -> str | None:
    return public(ip_of(text))


def noise(method: str, path: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is no visit, None for a visit.

    One of "head", "prefetch", "cross_site", "subresource", "health_check" and "bot".

    Crawlers read; what is posted is somebody's deed (a payment provider's webhook names itself
    like a crawler), but for a browser without anybody in front of it. Header names are in lower
    case.
    """
    if method == "HEAD":
        return "head"
    if not _PREFETCH_HEADERS.isdisjoint(headers):
        said = map(headers.__getitem__, _PREFETCH_HEADERS.intersection(headers))
        if _PREFETCH_WORDS.search(" ".join(said)):
            return "prefetch"  # a page that nobody may ever see
    wanted, mode = headers.get("sec-fetch-dest"), headers.get("sec-fetch-mode")
    if (
        wanted in _IN_A_PAGE
        and headers.get("sec-fetch-site") == "cross-site"
        # A service worker of ours that passes a navigation on; no script can ask like that.
        and (wanted != "empty" or mode != "navigate")
    ):
        return "cross_site"
    agent = headers.get("user-agent", "")[:AGENT_READ]
    if method != "GET":
        return "bot" if _kind_of(agent) == _DRIVEN else None
    if not _PRELOADERS.isdisjoint(headers) or headers.get("x-requested-with") == "swup":
        return "prefetch"
    if wanted == "empty" and mode == "no-cors":
        return "prefetch"  # quicklink's fetch: only for the browser's cache
    if wanted in _SUBRESOURCES and mode != "navigate":
        return "subresource"
    if path in _HEALTH_PATHS:
        return "health_check"
    kind = _kind_of(agent)
    return "bot" if kind == _DRIVEN else kind


@lru_cache(maxsize=2048)
def _kind_of(user_agent: str) -> str | None:
    """What asks: a health check, or a bot in the list of crawler-user-agents (PyPI, monperrus)."""
    if _HEALTH_AGENT.search(user_agent):
        return "health_check"
    for kind, patterns in _patterns():
        if any(pattern.search(user_agent) for pattern in patterns):
            return kind
    return None


@cache
def _patterns() -> list[tuple[str, list[re.Pattern[str]]]]:
    from importlib.resources import files

    text = files("crawleruseragents").joinpath("crawler-user-agents.json").read_text("utf-8")
    known: dict[str, list[str]] = {_DRIVEN: [], "bot": []}
    for one in json.loads(text):
        tags = one.get("tags", ())
        if _CLIENTS not in tags:
            known[_DRIVEN if _DRIVEN in tags else "bot"].append(one["pattern"])
    # Smaller groups search faster than one big alternation.
    return [
        (kind, [re.compile("|".join(some[at : at + 25])) for at in range(0, len(some), 25)])
        for kind, some in known.items()
    ]
