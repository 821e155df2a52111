"""Tenants: what the site said of them lately, and how often strangers may make us ask it."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from typing import TypeVar

from capi_middleware.capture.limits import Allowance
from capi_middleware.config.loading import fail, kind_of
from capi_middleware.config.pixels import Pixel, Tenant, is_key

T = TypeVar("T")
#: How long what the site said of a tenant holds, in seconds; and that there is none, or what was
#: known of one while it is asked again, and after that failed.
TENANT_SECONDS = 300.0
NOBODY_SECONDS = 30.0
#: Tenants that are remembered at once; and as many keys that nobody has, which are strangers'
#: own: they push out no tenant.
MOST_TENANTS = 10_000


class Tenants:
    """What `look_up` (Config.tenant) said of tenants lately, in memory alone.

    No lock: a process may be forked at any time, and to ask twice is no harm.
    """

    def __init__(
        self,
        look_up: Callable[[str], Tenant | Awaitable[Tenant | None] | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._now = now
        #: With the time when to ask again, those that were asked for last at the end.
        self._known: OrderedDict[str, tuple[float, Tenant]] = OrderedDict()
        #: Keys that nobody has, with the same.
        self._nobodys: OrderedDict[str, float] = OrderedDict()
        self._strangers = Allowance(rate=5.0, burst=100.0, of_all=50.0)

    def get(self, key: str) -> Tenant | None:
        """The tenant of this key; None where there is none.

        May take as long as the site's look-up, for one caller: others go by what was known. That
        stands where the look-up fails; without it raises what the look-up raised.
        """
        if (known := self.known(key)) is not None:
            with suppress(KeyError):
                self._known.move_to_end(key)
            return known
        now = self._now()
        if now < self._nobodys.get(key, 0.0):
            return None
        _, known = self._known.get(key, (0.0, None))
        if known is not None:
            self._known[key] = now + NOBODY_SECONDS, known
        try:
            found = self._checked(key)
        except Exception:
            if known is None:
                raise
            return known
        if found is None:
            self._known.pop(key, None)
            _remember(self._nobodys, key, now + NOBODY_SECONDS)
        else:
            self._nobodys.pop(key, None)
            _remember(self._known, key, (now + TENANT_SECONDS, found))
        return found

    def known(self, key: str) -> Tenant | None:
        """The tenant of this key where nobody needs to be asked."""
        until, known = self._known.get(key, (0.0, None))
        return known if self._now() < until else None

    def may_ask(self, key: str, address: str | None) -> bool:
        """Whether a visitor of this IP address may make us ask for the tenant of a key.

        Anybody may come with any number of host names.
        """
        now = self._now()
        is_told = key in self._known or now < self._nobodys.get(key, 0.0)
        return is_told or self._strangers.take(address, now)

    def pixel(self, name: str) -> Pixel | None:
        """The pixel that own_id() gave this name, as its tenant has it now."""
        number, _, key = name.partition("@")
        tenant = self.get(key)
        pixels = tenant.pixels if tenant is not None else ()
        return next((one for one in pixels if one.id == number), None)

    def _checked(self, key: str) -> Tenant | None:
        if not is_key(key):
            return None
        answer = self._look_up(key)
        found = _awaited(answer) if isawaitable(answer) else answer
        if found is not None and not (isinstance(found, Tenant) and found.key == key):
            other = f"the tenant {found.key!r}" if isinstance(found, Tenant) else kind_of(found)
            fail(f"Config.tenant({key!r})", other, "the Tenant of this key, or None")
        return found


def _remember(kept: OrderedDict[str, T], key: str, what: T) -> None:
    kept[key] = what
    with suppress(KeyError):  # another thread was faster
        kept.move_to_end(key)
        if len(kept) > MOST_TENANTS:
            kept.popitem(last=False)


async def _whole(answer: Awaitable[Tenant | None]) -> Tenant | None:
    return await answer


def _awaited(answer: Awaitable[Tenant | None]) -> Tenant | None:
    """What an asynchronous look-up gives, on an event loop of its own."""
    # Only an asynchronous look-up needs them.
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "capi-tenant") as alone:  # this thread may have a loop already
        return alone.submit(asyncio.run, _whole(answer)).result()
