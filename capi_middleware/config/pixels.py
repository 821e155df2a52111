"""Pixel: where events go, and with which tokens."""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime

from capi_middleware.config.loading import fail, kind_of, moment, read_no_environment
from capi_middleware.config.routes import check_event_name


@dataclass(frozen=True)
class Pixel:
    """A Meta pixel (dataset) that events go to.

    Args:
        id: its number, 1 to 26 digits.
        access_token: a token that may post to it; never shown by repr or errors.
        app_secret: signs each request with appsecret_proof when given.
        read_token: reads Meta's own numbers of it; the access_token by default, but one made in
            Events Manager may often only post.
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
