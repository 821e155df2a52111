"""Private: for structs that show nothing of what they hold, however they are looked at."""

from typing import Any


class Private:
    """A Struct that holds something of a visitor, or a payload.

    Its own repr would show all fields, and thereby the visitor to every log of a traceback.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return object.__repr__(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Nothing either: rich asks for it before it takes the repr."""
        return []
