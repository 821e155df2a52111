"""Private: structs, errors that show nothing of what they hold; threads that know no request."""

from collections.abc import Callable
from contextvars import Context
from functools import wraps
from threading import Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def frameless(function: Callable[P, T]) -> Callable[P, T]:
    """What fails in it says so without its frames.

    Error trackers such as Sentry send the variables of each frame along, and here these are keys
    and tokens. What the error says has to do.
    """

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        try:
            return function(*given, **named)
        except Exception as error:
            failure = error.with_traceback(None)
        del given, named
        raise failure from None

    return call


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
