"""Visitor: who a conversion belongs to, kept from checkout to a webhook or job days later."""

from typing import Literal

import msgspec
from msgspec import Struct

from capi_middleware.errors import BadVisitor
from capi_middleware.private import Private

_VERSION = "v1"


class Visitor(Private, Struct, frozen=True, kw_only=True):
    """What Meta wants unhashed about a visitor, and the consent that was given.

    Holds no e-mail, phone or name. `country` is for the report alone: two letters, "" where no
    trusted proxy tells it. `signed_at` is when it was signed, in Unix seconds; `signed` is
    the text it was read from, "" for a visitor of a request in progress. `CAPI.track` verifies that
    this site signed it, and that no field was changed since.
    """

    fbp: str | None = None
    fbc: str | None = None
    client_ip_address: str | None = None
    client_user_agent: str | None = None
    event_source_url: str | None = None
    referrer_url: str | None = None
    consent: Literal["granted", "denied", "limited"] = "granted"
    data_processing_options_country: int = 0
    data_processing_options_state: int = 0
    country: str = ""
    signed_at: int = 0
    signed: str = ""

    def __repr__(self) -> str:
        return f"Visitor(consent={self.consent!r})"

    def dumps(self) -> str:
        """The visitor as signed, versioned text for an order row or a job. Not encrypted.

        Raises BadVisitor for a visitor that is neither of a request nor read with loads().
        """
        if not self.signed:
            raise BadVisitor("found a visitor made by hand, expected one of current_visitor()")
        return self.signed

    def encode(self) -> str:
        """The text to be signed."""
        data = {
            name: value
            for name in self.__struct_fields__
            if name != "signed" and (value := getattr(self, name)) not in (None, 0, "")
        }
        return f"{_VERSION}.{msgspec.json.encode(data).decode()}"

    @classmethod
    def loads(cls, text: str) -> "Visitor":
        """Read what dumps() wrote. Raises BadVisitor when the text is of another kind.

        The signature is verified where the visitor is used, because only there is the key known.
        """
        visitor = _read(text)
        if visitor is None:
            del text  # a traceback with local variables would show it
            raise BadVisitor(f"found a text that is no visitor, expected {_VERSION}.… of dumps()")
        return visitor


def _read(text: str) -> Visitor | None:
    version, _, rest = text.partition(".")
    body, _, _signature = rest.rpartition(".")
    if version != _VERSION:
        return None
    try:
        visitor = msgspec.json.decode(body, type=Visitor)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return msgspec.structs.replace(visitor, signed=text)
