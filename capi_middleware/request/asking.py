"""Asking: the callables of the configuration, synchronous or not; their failure is survived."""

from collections.abc import MutableMapping
from inspect import isawaitable, iscoroutine
from typing import Any

from msgspec import Struct

from capi_middleware.private import Private
from capi_middleware.shield import Shield
from capi_middleware.steps import Steps

#: In the scope: the framework's own request, which callables get instead of a Starlette Request.
REQUEST = "capi_middleware.request"


class Asker(Private, Struct):
    """Asks the host's callables about one request, an ASGI http scope."""

    _scope: MutableMapping[str, Any]
    _shield: Shield

    def call(self, rule: Any) -> Steps[Any]:
        """The answer of a callable; None when it fails."""
        from starlette.requests import Request

        try:
            value = rule(self._scope.get(REQUEST) or Request(self._scope))
            if isawaitable(value):
                value = yield value
        except Exception as error:
            self._shield.caught(error, "a callable of the configuration")
            return None
        return value

    def call_now(self, rule: Any) -> Any:
        """The answer of a callable where nobody can wait: None when it is asynchronous."""
        steps = self.call(rule)
        try:
            waiting = next(steps)
        except StopIteration as end:
            return end.value
        if iscoroutine(waiting):
            waiting.close()
        return None
