"""Carrying: events that are born where no page is ride to what the browser gets next."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from capi_middleware.errors import BadBeacon
from capi_middleware.events import PageEvent
from capi_middleware.page.tag import ascii_json
from capi_middleware.signing import short_hash

T = TypeVar("T", str, bytes)

#: The cookie that a redirect sets, and how long it waits for a page, in seconds.
COOKIE = "capi_next"
COOKIE_SECONDS = 300
_COOKIE_START = f"{COOKIE}=".encode()
#: How long a page that was fetched ahead may wait until it is shown, in seconds.
WAITING_SECONDS = 3600
#: What the answer to a script's own request carries its events in.
HEADER = b"x-capi-events"
#: From this length in bytes an event leaves all but its value at home, and at the longest some
#: events stay there: browsers keep 4 KB for a cookie, and other sites' servers take 8 KB of them.
_COMFORTABLE, _LONGEST = 600, 1500
_LONGEST_HEADER, _LONGEST_WAITING = 4000, 3000
_APP = re.compile(r"\w+(?:\.\w+)+")
_NEEDED = ("value", "currency", "content_ids", "content_type")


class Signer(Protocol):
    """Signs texts for this purpose; signing.TextSigner is one."""

    def sign(self, text: str) -> str:
        """The text with its signature."""

    def unsign(self, signed: str) -> str | None:
        """The text, None when the signature is not ours."""


class _Carried(msgspec.Struct, omit_defaults=True):
    """`t`: Unix time in seconds; `s`: only a script's request led here; `u`: of which address.

    `d`: the domain of the cookie, "" where one host has it.
    """

    t: int
    s: bool
    e: list[PageEvent]
    u: str = ""
    d: str = ""


class Carrier:
    """Packs page events into a signed text, good for some `seconds`, and back.

    The text is short enough for a cookie, or for a header and a tag: of `longest` characters, and
    with all that its events hold where it is no longer than `comfortable`.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        seconds: int = COOKIE_SECONDS,
        comfortable: int = _COMFORTABLE,
        longest: int = _LONGEST,
    ) -> None:
        self._signer = signer
        self._seconds = seconds
        self._comfortable, self._longest = comfortable, longest

    @classmethod
    def waiting(cls, signer: Signer) -> "Carrier":
        """For events of a page that was fetched ahead."""
        return cls(
            signer, seconds=WAITING_SECONDS, comfortable=_LONGEST_WAITING, longest=_LONGEST_WAITING
        )

    @classmethod
    def held(cls, signer: Signer, minutes: int) -> "Carrier":
        """For events that wait until a visitor consents."""
        return cls(
            signer, seconds=60 * minutes, comfortable=_LONGEST_WAITING, longest=_LONGEST_WAITING
        )

    def pack(
        self,
        events: Sequence[PageEvent],
        *,
        now: float,
        scripted: bool,
        owner: str,
        address: str = "",
        domain: str = "",
    ) -> tuple[str, int]:
        """The text, and how many of the events are in it; `address` is what they happened at.

        `domain` is that of its cookie.

        It is of use to its `owner` alone, a visitor's fbp; to anybody where that is "".
        """
        carried = _Carried(int(now), scripted, [], short_hash(address) if address else "", domain)
        return _fitted(
            events,
            lambda some: self._pack(replace(carried, e=some), owner),
            self._comfortable,
            self._longest,
        )

    def _pack(self, carried: _Carried, owner: str) -> str:
        body = base64.urlsafe_b64encode(msgspec.json.encode(carried)).decode().rstrip("=")
        # Signed with the owner, who brings it anyway.
        signature = self._signer.sign(f"{body}|{owner}").rpartition(".")[2]
        return f"{body}.{signature}"

    def unpack(self, text: str, *, now: float, owner: str) -> tuple[list[PageEvent], bool, str]:
        """The events, whether a script's request led here, and the domain of the cookie.

        Raises BadBeacon for what is not ours, another visitor's or too old.
        """
        carried = self._unpack(text, now, owner)
        return carried.e, carried.s, carried.d

    def waited(self, text: str, *, now: float, address: str) -> tuple[list[PageEvent], bool, int]:
        """The events, whether they happened at `address`, and when they were packed (Unix seconds).

        Raises BadBeacon otherwise.
        """
        carried = self._unpack(text, now, "")
        return carried.e, carried.u == short_hash(address), carried.t

    def _unpack(self, text: str, now: float, owner: str) -> _Carried:
        body, _, signature = text.partition(".")
        signed = f"{body}|{owner}.{signature}"
        if len(text) > 2 * self._longest or self._signer.unsign(signed) is None:
            raise BadBeacon("found no events of ours, expected what this site set for this visitor")
        try:
            carried = msgspec.json.decode(
                base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=_Carried
            )
        except (ValueError, msgspec.DecodeError) as error:
            raise BadBeacon("found events of another version") from error
        if abs(now - carried.t) > self._seconds:
            raise BadBeacon(f"found events that are older than {self._seconds} seconds")
        return carried


def brings(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request with these headers (names in lower case) seems to bring events along."""
    for name, value in headers:  # noqa: SIM110 - any() of a generator takes twice as long
        if name == b"cookie" and _COOKIE_START in value:
            return True
    return False


def as_header(
    events: Sequence[PageEvent], waiting: str = "", held: Mapping[str, Any] = {}
) -> tuple[bytes, int]:
    """A header's value of at most 4000 bytes, and how many of the events are in it.

    `waiting` is the signed text of events that wait until the answer is shown, `held` that of those
    which wait until the visitor consents (g), and their names (h).
    """
    more = {"w": waiting, **held} if waiting else held
    if not more:
        return _fitted(events, ascii_json, _LONGEST_HEADER, _LONGEST_HEADER)
    return _fitted(
        events, lambda some: ascii_json({"e": some, **more}), _COMFORTABLE, _LONGEST_HEADER
    )


def _fitted(
    events: Sequence[PageEvent],
    pack: Callable[[list[PageEvent]], T],
    comfortable: int,
    longest: int,
) -> tuple[T, int]:
    """As many events as fit, packed, and their number; above `comfortable` the least of each."""
    kept = list(events)
    text = pack(kept)
    if len(text) > comfortable:
        kept = [_least(event) for event in kept]
        text = pack(kept)
    while len(text) > longest and kept:
        kept.pop()
        text = pack(kept)
    return text, len(kept)


def _least(event: PageEvent) -> PageEvent:
    data = {key: event.custom_data[key] for key in _NEEDED if key in event.custom_data}
    if len(json.dumps(data)) > _COMFORTABLE // 2:
        data = {key: data[key] for key in ("value", "currency") if key in data}
    return replace(event, custom_data=data)


def is_scripted(headers: Mapping[str, str]) -> bool:
    """Whether a page's script asks (fetch, XMLHttpRequest, htmx, Turbo) and gets the answer.

    Browsers say so in Sec-Fetch-Dest, and in Sec-Fetch-Mode that a service worker asks for a page;
    older ones only by what the libraries add.
    """
    wanted = headers.get("sec-fetch-dest")
    if wanted is not None:
        return wanted == "empty" and headers.get("sec-fetch-mode") != "navigate"
    return bool(_asked_with(headers) or headers.get("hx-request") or headers.get("turbo-frame"))


def _asked_with(headers: Mapping[str, str]) -> str:
    """The library that asks; Android's web views say the name of their app with every request."""
    name = headers.get("x-requested-with", "")
    return "" if _APP.fullmatch(name) else name


def is_navigation(headers: Mapping[str, str]) -> bool:
    """Whether a script asks for a page in place of the browser (Turbo Drive, htmx boost)."""
    if headers.get("hx-request"):
        return bool(headers.get("hx-boosted"))
    if headers.get("turbo-frame") or _asked_with(headers):
        return False
    # A form of Turbo asks for its streams first.
    return "text/html" in headers.get("accept", "")


def set_cookie(value: str, domain: str, *, secure: bool) -> bytes:
    """A Set-Cookie line; an empty value removes the cookie, an empty domain is this host's."""
    age = COOKIE_SECONDS if value else 0
    where = f"; Domain=.{domain}" if domain else ""
    return (
        f"{COOKIE}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Lax"
        f"{where}{'; Secure' if secure else ''}"
    ).encode("ascii")
