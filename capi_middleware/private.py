"""Private: structs that show nothing of what they hold, and threads that know of no request."""

from contextvars import Context
from threading import Thread
from typing import Any


def start_apart(thread: Thread) -> None:
    """Start a thread that works for all requests, from whichever comes first.

    Tracers hand on the context of whoever starts a thread: for as long as the process lives that
    visitor's trace, baggage and user would be told of the events of all others, and to Meta.
    Raises RuntimeError where the interpreter is about to end.
    """
    Context().run(thread.start)


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
