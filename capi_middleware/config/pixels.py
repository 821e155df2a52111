"""Pixel: where events go, and with which tokens; Tenant: a customer who brings pixels."""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime

from capi_middleware.config.loading import fail, kind_of, moment, read_no_environment
from capi_middleware.config.routes import check_event_name
from capi_middleware.private import frameless

_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Pixel:
    """A Meta pixel (dataset) that events go to.

    Args:
        id: its number, 1 to 26 digits.
        access_token: a token that may post to it; never shown by repr or errors.
        app_secret: signs each request with appsecret_proof when given.
        read_token: reads Meta's own numbers of it; the access_token by default, but one made in
            Events Manager reads the quality alone, and before July 2025 nothing.
        test_event_code: sends everything to the Test Events tab as well; events still count.
        test_event_until: when that ends, an aware datetime or ISO 8601 text; never by default.
        name: how the report calls it.
        events: the event_names that go there; all by default.
    """

    id: str
    access_token: str = field(repr=False)
    _: KW_ONLY
    app_secret: str | None = field(default=None, repr=False)
    read_token: str | None = field(default=None, repr=False)
    test_event_code: str | None = None
    test_event_until: datetime | str | None = None
    name: str | None = None
    events: Sequence[str] | None = None

    def __post_init__(self) -> None:
        number = str(self.id)
        if not re.fullmatch(r"[1-9][0-9]{0,25}", number):
            fail("pixels.id", repr(self.id), "the pixel's number, 1 to 26 digits")
        object.__setattr__(self, "id", number)
        for name in ("access_token", "read_token", "app_secret"):
            read_no_environment(f"pixels.{name} of pixel {number}", getattr(self, name))
        for name in ("access_token", "read_token"):
            token = getattr(self, name)
            is_token = isinstance(token, str) and token.strip() and token.isascii()
            if not is_token and (token is not None or name == "access_token"):
                fail(f"pixels.{name} of pixel {number}", kind_of(token), f"its {name}")
        until = moment(f"pixels.test_event_until of pixel {number}", self.test_event_until)
        object.__setattr__(self, "test_event_until", until)
        if isinstance(self.events, str):
            fail(f"pixels.events of pixel {number}", repr(self.events), "a list of event_names")
        for name in self.events or ():
            check_event_name(name, f"pixels.events of pixel {number}")

    def takes(self, event_name: str) -> bool:
        """Whether events of this `event_name` go to this pixel."""
        return self.events is None or event_name in self.events


@dataclass(frozen=True)
class Tenant:
    """A customer of a platform, whose events go to pixels of their own.

    Args:
        key: a short name that never changes, of letters, digits, ".", "_" and "-".
        pixels: where its events go.
        report_token: opens the report of this tenant alone, at least 16 characters.
    """

    key: str
    pixels: Sequence[Pixel]
    report_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_key(self.key):
            fail("Tenant.key", repr(self.key), "1 to 64 letters, digits, '.', '_' and '-'")
        for pixel in self.pixels:
            if not isinstance(pixel, Pixel):
                fail(f"pixels of tenant {self.key}", kind_of(pixel), "Pixel objects")
        ids = [pixel.id for pixel in self.pixels]
        if len(set(ids)) < len(ids):
            fail(f"pixels of tenant {self.key}", f"an id twice in {ids}", "each pixel once")
        token = self.report_token
        if token is not None and not (isinstance(token, str) and len(token) >= 16):
            found = f"{len(token)} characters" if isinstance(token, str) else kind_of(token)
            fail(f"report_token of tenant {self.key}", found, "at least 16 characters")

    def pixel_ids(self, event_name: str, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
        """The pixels that an event of this `event_name` goes to, as own_id() names them.

        Only the `wanted` of them, which are Meta's numbers.
        """
        return tuple(
            own_id(pixel.id, self.key)
            for pixel in self.pixels
            if pixel.takes(event_name) and (wanted is None or pixel.id in wanted)
        )


for _kind in (Pixel, Tenant):
    _kind.__init__ = frameless(_kind.__init__)  # type: ignore[method-assign]


def is_key(key: object) -> bool:
    """Whether this may be the key of a tenant."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def own_id(pixel_id: str, tenant: str) -> str:
    """How a tenant's pixel is called everywhere but at Meta: two may bring the same number."""
    return f"{pixel_id}@{tenant}"
