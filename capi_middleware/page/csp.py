"""Content Security Policy: may our script run in this page, under which nonce, and what else?

The rules are those of CSP Level 3 and of Integrity-Policy (W3C). The tag is one external script
of the page's own origin; no policy is ever edited.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

Policy = dict[str, list[str]]

# Only this alphabet may reach the markup; anything else would let a header write HTML.
#: Longer policies are not remembered, in characters.
_REMEMBERED = 4096
_NONCE = re.compile(r"'nonce-([A-Za-z0-9+/_-]+={0,2})'", re.IGNORECASE)
_SCHEME_SOURCE = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_HOST_SOURCE = re.compile(
    r"(?:([a-z][a-z0-9+.-]*)://)?"
    r"(\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)"
    r"(?::(\d+|\*))?"
    r"(/[^?#]*)?",
    re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}

#: The destinations of an Integrity-Policy, and the directive that it is judged as.
_INTEGRITY = re.compile(r"blocked-destinations\s*=\s*\(([^)]*)\)")
_BY_INTEGRITY = "integrity-policy"
_IN_SANDBOX = {"allow-scripts", "allow-same-origin"}


class Address(NamedTuple):
    """Where something is loaded from or sent to. Without a path it stands for any path."""

    scheme: str
    host: str
    port: str
    path: str = ""


class Ruling(NamedTuple):
    """What the policies say: is the tag `allowed`, under which `nonce`, what else they block."""

    allowed: bool
    nonce: str | None = None
    notes: tuple[str, ...] = ()


# What the pixel itself needs: Meta's library, then its configuration of one pixel (observed).
_LIBRARY = (
    Address("https", "connect.facebook.net", "443", "/en_US/fbevents.js"),
    Address("https", "connect.facebook.net", "443", "/signals/config/"),
)
_PIXEL = Address("https", "www.facebook.com", "443", "/tr/")


def own_address(scheme: str, host: str) -> Address:
    """The page's own origin, from its scheme and its Host ("name" or "name:port")."""
    name, _, port = host.rpartition(":")
    if not name or not port.isdecimal():
        name, port = host, _DEFAULT_PORTS.get(scheme, "")
    return Address(scheme, name.lower(), port)


def integrity(value: str) -> list[str]:
    """The policies that an Integrity-Policy header comes to for rule(): one if it is of scripts."""
    found = _INTEGRITY.search(value)
    return [_BY_INTEGRITY] if found and "script" in found[1].split() else []


def rule(enforced: Sequence[str], report_only: Sequence[str], own: Address) -> Ruling:
    """Judge the tag by all policies of a response.

    `enforced` and `report_only` are the values of the two headers. Every enforced policy must
    allow the tag, all by the same nonce where they ask for one. A report-only policy never
    blocks, but its nonce is used where no enforced one exists, to keep its reports quiet.
    `notes` name what is blocked although the tag may run: "script-src" (Meta's library),
    "integrity-policy" (the same, as it has no integrity; the tag must have one), "img-src" (the
    pixel), "connect-src" (our beacon), "connect-src-meta" (the pixel by fetch, which tells more
    than an image).
    """
    # Nonces differ from response to response, the rest of the policies does not: it is judged
    # once, with a number in the place of each nonce.
    nonces: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return f"'nonce-{nonces.setdefault(found[1], str(len(nonces)))}'"

    rules = [tuple(_NONCE.sub(number, value) for value in some) for some in (enforced, report_only)]
    known = sum(map(len, chain(*rules))) <= _REMEMBERED
    ruling = (_rule if known else _rule.__wrapped__)(*rules, own)
    if ruling.nonce is None:
        return ruling
    return Ruling(ruling.allowed, list(nonces)[int(ruling.nonce)], ruling.notes)


@lru_cache(maxsize=64)
def _rule(enforced: tuple[str, ...], report_only: tuple[str, ...], own: Address) -> Ruling:
    policies = list(_parse(enforced))
    for policy in policies:
        # In a sandbox without its origin the script runs, but its word comes from nowhere.
        if not _IN_SANDBOX.issubset(map(str.lower, policy.get("sandbox", _IN_SANDBOX))):
            return Ruling(allowed=False)
    sources = [found for policy in policies if (found := _script_sources(policy)) is not None]
    undecided = [one for one in sources if _is_strict(one) or not _reaches(one, own, own)]
    nonces = _nonces(sources)
    nonce = next((n for n in nonces if all(n in _nonces([found]) for found in undecided)), None)
    if undecided and nonce is None:
        return Ruling(allowed=False)
    if nonce is None:
        reported = (_script_sources(policy) for policy in _parse(report_only))
        nonce = next(iter(_nonces(found for found in reported if found)), None)
    return Ruling(allowed=True, nonce=nonce, notes=_notes(policies, own))


def _parse(values: Iterable[str]) -> Iterable[Policy]:
    for value in values:
        for text in value.split(","):
            policy: Policy = {}
            for directive in text.split(";"):
                words = directive.split()
                if words:
                    policy.setdefault(words[0].lower(), words[1:])
            if policy:
                yield policy


def _sources(policy: Policy, *names: str) -> list[str] | None:
    """The source list of the first of these directives that the policy has; None = all allowed."""
    return next((policy[name] for name in names if name in policy), None)


def _script_sources(policy: Policy) -> list[str] | None:
    return _sources(policy, "script-src-elem", "script-src", "default-src")


def _nonces(sources: Iterable[list[str]]) -> list[str]:
    found = (_NONCE.fullmatch(source) for listed in sources for source in listed)
    return [match[1] for match in found if match]


def _is_strict(sources: list[str]) -> bool:
    return any(source.lower() == "'strict-dynamic'" for source in sources)


def _reaches(sources: list[str], target: Address, own: Address) -> bool:
    return any(
        (source.lower() == "'self'" and target == own) or _matches(source, target, own)
        for source in sources
    )


def _matches(source: str, target: Address, own: Address) -> bool:
    if source == "*":
        return True
    scheme = _SCHEME_SOURCE.fullmatch(source)
    if scheme:
        return _scheme_matches(scheme[1].lower(), target)
    found = _HOST_SOURCE.fullmatch(source)
    if found is None or not target.host:
        return False
    given, host, port, path = found.groups()
    host = host.lower()
    return (
        _scheme_matches((given or own.scheme).lower(), target)
        and (host in ("*", target.host) or (host[:2] == "*." and target.host.endswith(host[1:])))
        and (
            port in ("*", target.port)
            or (port is None and target.port == _DEFAULT_PORTS.get(target.scheme))
            or (port == "80" and target.port == "443" and target.scheme == "https")
        )
        and (
            path in (None, "/", target.path)
            or (path.endswith("/") and target.path.startswith(path))
        )
    )


def _scheme_matches(scheme: str, target: Address) -> bool:
    return scheme == target.scheme or (scheme == "http" and target.scheme == "https")


def _notes(policies: list[Policy], own: Address) -> tuple[str, ...]:
    notes = []
    for policy in policies:
        scripts = _script_sources(policy)
        # Under 'strict-dynamic' whatever our own script loads is trusted like the script itself.
        if not (
            scripts is None
            or _is_strict(scripts)
            or all(_reaches(scripts, address, own) for address in _LIBRARY)
        ):
            notes.append("script-src")
        if _BY_INTEGRITY in policy:
            notes.append(_BY_INTEGRITY)
        images = _sources(policy, "img-src", "default-src")
        if images is not None and not _reaches(images, _PIXEL, own):
            notes.append("img-src")
        beacon = _sources(policy, "connect-src", "default-src")
        if beacon is not None and not _reaches(beacon, own, own):
            notes.append("connect-src")
        elif beacon is not None and not _reaches(beacon, _PIXEL, own):
            notes.append("connect-src-meta")
    return tuple(dict.fromkeys(notes))
