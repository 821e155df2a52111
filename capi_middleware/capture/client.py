"""The client: from where, and under which address, a browser sees the site behind its proxies."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from capi_middleware.errors import ConfigError
from capi_middleware.private import Private

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Addresses of no visitor: private, shared by a carrier, of the own host, of groups.
_NOBODY = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3",
        "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip
_FORWARDED_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*("[^"]*"|[^;,"\s]+)\s*')


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
    """`ip`: the visitor's public address or None. `scheme` and `host`: as the browser sees them."""

    ip: str | None
    scheme: str
    host: str


def read_client(
    peer: str | None, scheme: str, headers: Mapping[str, str], proxies: Proxies
) -> Client:
    """What the connection says, or what trusted proxies say about it.

    X-Forwarded-For, else Forwarded (RFC 7239), is read from the right, past trusted hops; its
    entries further left are what anybody may write. Header names are in lower case.
    """
    host = headers.get("host", "")
    if not (proxies.networks or proxies.unix):
        return Client(_public_ip(peer or ""), scheme, host)
    address = _address(peer or "")
    believed = proxies.unix if address is None and not peer else _trusted(address, proxies)
    if not believed:
        return Client(_public(address), scheme, host)
    for hop in _hops(headers):
        address = _address(hop.get("for", ""))
        if not _trusted(address, proxies):
            scheme, host = hop.get("proto", scheme), hop.get("host", host)
            break
    scheme = _first(headers, "x-forwarded-proto") or scheme
    host = _first(headers, "x-forwarded-host") or host
    return Client(_public(address), "https" if scheme.lower() in ("https", "wss") else "http", host)


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


def _first(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip()


def _trusted(address: Address | None, proxies: Proxies) -> bool:
    return address is not None and any(address in network for network in proxies.networks)


def _public(address: Address | None) -> str | None:
    if address is None or any(address in network for network in _NOBODY):
        return None
    return str(address)


@lru_cache(maxsize=2048)
def _public_ip(text: str) -> str | None:
    return _public(_address(text))


def _address(text: str) -> Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
