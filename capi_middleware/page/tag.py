"""The pixel tag is a data block that never executes, and one first-party script."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from capi_middleware.capture.consent import GRANTED, UNANSWERED, Permission
from capi_middleware.events import STANDARD_EVENTS, Event, PageEvent, PageKey
from capi_middleware.meta.match_keys import ADVANCED_MATCHING
from capi_middleware.private import Private
from capi_middleware.signing import signed_name

_encode = msgspec.json.Encoder().encode
#: What a path has as it is in an attribute: a mount may be what the visitor asked for.
_MOUNT_SAFE = "/:@!$()*+,;=~"
#: A policy that refuses one of them lets the requests of Meta's library go their own way (1).
_CARRIED = frozenset({"img-src", "connect-src-meta"})
#: The site itself can be told by an image alone.
_BY_IMAGE = 2
# "<" must not open or close anything inside a script element.
_ESCAPES = ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"))


@cache
def script(listens: bool = False) -> bytes:
    """The pixel script as pages load it: s.min.js, which `make script` makes of script/.

    What `listens` to banners is c.min.js, the same with what hears and holds.
    """
    return Path(__file__).with_name("c.min.js" if listens else "s.min.js").read_bytes()


@cache
def _before() -> bytes:
    """What runs before the script on a page without a block: foreign.min.js, made likewise."""
    return Path(__file__).with_name("foreign.min.js").read_bytes().strip()


@cache
def script_version(listens: bool = False) -> str:
    """A hash of the script, part of its URL, so that it may be cached for ever."""
    digest = sha256(script(listens)).digest()[:9]
    return base64.urlsafe_b64encode(digest).decode()


class PixelEntry(Private, Struct, omit_defaults=True, gc=False):
    """A pixel as the script reads it.

    `ev`: the event names that it takes, None for all. `am`: hashed user_data for the pixel's init,
    one value for each key of Meta's page "Advanced Matching"; it leaves a SHA-256 as it is.
    """

    id: str
    ev: list[str] | None = None
    am: dict[str, str] | None = None


class _Block(Private, Struct, omit_defaults=True):
    """The data block. Its letters are what the script reads."""

    u: str
    s: str
    p: Sequence[PixelEntry]
    e: Sequence[PageEvent]
    a: bool = False
    m: bool = False
    k: PageKey | None = None
    x: str | None = None
    l: tuple[int, int] | None = None  # noqa: E741 - the script's letter
    w: str = ""
    y: str = ""
    c: int = 0
    q: Sequence[Any] | None = None
    g: str = ""
    r: bool = False
    i: bool = False


def below(mount: str, prefix: str) -> str:
    """The path of our endpoints as a browser is told it: of this host, whatever the mount is.

    A path that begins with two slashes would be the address of another host.
    """
    mount = mount.strip("/")
    return f"/{quote(mount, safe=_MOUNT_SAFE, errors='replace')}{prefix}" if mount else prefix


def pixel_entries(
    pixels: Mapping[str, Sequence[str] | None], matching: Mapping[str, Any] = {}
) -> list[PixelEntry]:
    """The pixels as the script reads them, by id: the event names that each takes, None for all.

    `matching` is hashed user_data for the pixel's init.
    """
    known = {  # the pixel would hash what has an appendix
        key: matching[key][0][:64]
        for key in ADVANCED_MATCHING
        if isinstance(matching.get(key), list)
    }
    return [
        PixelEntry(pixel_id, None if takes is None else list(takes), known or None)
        for pixel_id, takes in pixels.items()
    ]


def page_events(events: Sequence[Event]) -> list[PageEvent]:
    """The events as the script reads them."""
    told = []
    for event in events:
        name = event.event_name
        is_custom = 0 if name in STANDARD_EVENTS else 1
        pixel_ids = event.pixel_ids
        if pixel_ids and "@" in pixel_ids[0]:  # a tenant's: the page has no other
            pixel_ids = tuple([one.partition("@")[0] for one in pixel_ids])
        told.append(PageEvent(name, event.event_id, event.custom_data, pixel_ids, is_custom))
    return told


def page_key(
    told: Sequence[PageEvent], path: str | None, digest: Callable[[bytes], Any], tenant: str = ""
) -> PageKey | None:
    """What shows later that a page is ours: an event_id minted for it, if it has one.

    `path` is the one below any mount at which the app answered that page, None where a script made
    the address; `digest` is signing.page_digest(). `tenant` is the key of whose page it is.
    """
    for event in told:
        event_id = event.event_id
        if event_id[0] == "t":  # the others come from a dedupe_key: many pages have them
            page = ""
            if path is not None:
                page = digest(f"{event_id} {path}".encode("utf-8", "surrogatepass")).hexdigest()
            name = event.event_name
            return PageKey(signed_name(name, tenant) if tenant else name, event_id, page)
    return None


def told_consent(permission: Permission) -> tuple[str | None, tuple[int, int] | None]:
    """What the script must know of an answer: nothing (None, None) when it is granted.

    Else its name and, for "limited", Meta's codes (country, state) for limited data use.
    """
    consent, country, state, _ = permission
    if consent == "granted":
        return None, None
    return consent, (country, state) if consent == "limited" else None


def ascii_json(data: object) -> bytes:
    """JSON in pure ASCII, which no encoding of a page or a header changes."""
    text = _encode(data)
    return text if text.isascii() else _escaped(text)


def _escaped(text: bytes) -> bytes:
    return json.dumps(json.loads(text), separators=(",", ":")).encode("ascii")


class TagMaker:
    """Makes the tags of one site. `prefix` is the path of our endpoints below any mount.

    With `mirror` the page's own pixel calls get event_ids. `heard` is what the script hears the
    consent of in the page, see ConsentRule.heard.
    """

    def __init__(
        self, *, prefix: str, script_url: str, mirror: bool, heard: Sequence[Any] | None = None
    ) -> None:
        self._prefix = prefix
        self._heard = heard
        #: Whether the script is the one that listens to banners.
        self.listens: bool = heard is not None
        self._element = self._script(prefix, None)
        self._script_url = script_url
        self._mirror = mirror

    def script_elsewhere(self, pixels: Sequence[PixelEntry], cookies: Sequence[str]) -> bytes:
        """The script for pages that the app does not answer, which have no tag.

        `cookies` are the names of those that say what a visitor allows.
        """
        told = {"s": self._script_url, "p": pixels, "e": [], "a": True, "m": self._mirror}
        told |= {"q": self._heard} if self.listens else {}
        text = ascii_json({**told, "n": ["_fbp", "_fbc", *cookies]}).decode("ascii")
        return b"(%b)(%b);\n%b" % (_before(), ascii_json(text), script(self.listens))

    def tag(
        self,
        pixels: Sequence[PixelEntry],
        events: Sequence[PageEvent] = (),
        *,
        mount: str = "",
        ask: bool = False,
        waiting: str = "",
        held: str = "",
        mark: str = "",
        consent: Permission = GRANTED,
        key: PageKey | None = None,
        nonce: str | None = None,
        refused: Sequence[str] = (),
        hides: bool = False,
        origin: str = "",
        has_script: bool = False,
    ) -> bytes:
        """The bytes to insert: pure ASCII.

        `mount` is the path that the app is mounted at. With `ask` the page does not carry all its
        events and the script asks for the others, or for those that are `waiting` until the page is
        shown (signed, see Carrier), or `held` until its visitor consents; `mark` shows that the app
        answered it. `key` is what shows that later calls come from this page. `nonce` is the page's
        own CSP nonce; `refused` is what its policy keeps the script from, see csp.Ruling.notes; it
        `hides` its address from what it calls, which the script tells then.
        """
        way = _BY_IMAGE if "connect-src" in refused else int(not _CARRIED.isdisjoint(refused))
        prefix = below(mount, self._prefix) if mount else self._prefix
        state, limits = (None, None) if consent is GRANTED else told_consent(consent)
        state = UNANSWERED if held else state
        vouched = "integrity-policy" in refused
        block = _encode(
            _Block(
                prefix, self._script_url, pixels, events, ask, self._mirror, key, state, limits,
                waiting, mark, way, self._heard, held, hides, vouched,
            )
        )  # fmt: skip
        if not block.isascii():
            block = _escaped(block)
        for character, escape in _ESCAPES:
            block = block.replace(character, escape)
        element = b""
        if not has_script:
            is_own = mount or nonce or origin or vouched
            element = self._script(origin + prefix, nonce, vouched) if is_own else self._element
        return b'<script type="application/json" data-c>%b</script>%b' % (block, element)

    def _script(self, prefix: str, nonce: str | None, vouched: bool = False) -> bytes:
        more = f' nonce="{nonce}"' if nonce else ""
        if vouched:
            digest = base64.b64encode(sha256(script(self.listens)).digest()).decode()
            more += f' integrity="sha256-{digest}" crossorigin'
        source = f"{prefix}/s.js?v={script_version(self.listens)}"
        return f'<script src="{source}" async{more}></script>'.encode("ascii")
