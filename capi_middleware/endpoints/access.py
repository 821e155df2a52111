"""Access: who may read the report, by the token in a header or by a browser's login."""

import time
from collections.abc import Callable, Mapping

from starlette.responses import Response

from capi_middleware.capture.limits import Allowance, is_told_apart
from capi_middleware.config.settings import Config
from capi_middleware.signing import equal, link_signer, login_signer

#: How long a browser stays logged in, in seconds.
LOGIN_SECONDS = 12 * 3600
COOKIE = "capi_report"
#: How long a link to the report may work, in days.
LINK_DAYS = 30
#: Addresses that may each use up their own limit: no stranger spends that of another.
_EVERYBODY = 10_000.0


class Access:
    """Knows the report_token; that of a tenant (`own`) opens as well what is that tenant's alone.

    Wrong tokens are limited for each address.

    All who cannot be told apart (behind a proxy that is not in trusted_proxies, without a peer
    address) share one limit. Where it is spent the right token is refused as well, which would tell
    that it is right; a browser that is logged in never is. Without a report_token nobody gets in
    and nothing is shown to exist, unless Config.debug.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._token = config.report_token
        self._debug = config.debug
        self._clock = clock
        self._secrets = config.secrets
        self._wrong = Allowance(rate=0.1, burst=10.0, of_all=_EVERYBODY)
        self._crowd = Allowance(rate=2.0, burst=200.0, of_all=1.0)

    def served(self, own: str | None = None) -> bool:
        """Whether there is a report at all."""
        return self._token is not None or own is not None or self._debug

    def refusal(
        self, headers: Mapping[str, str], address: str | None, own: str | None = None
    ) -> int | None:
        """Why a request may not read, as a status: 404, 401 or 429; None when it may."""
        if not self.served(own):
            return 404
        if (self._token is None and self._debug) or self._has_login(headers, own):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return 401
        return self.check(given.strip(), address, own)

    def check(self, given: str, address: str | None, own: str | None = None) -> int | None:
        """The status that refuses this token (401 or 429); None when it is the right one."""
        now = self._clock()
        wrong = self._wrong if is_told_apart(address) else self._crowd
        if wrong.is_spent(address, now):
            return 429
        tokens = [token for token in (self._token, own) if token is not None]
        if any([equal(token, given) for token in tokens]):  # noqa: C419 - in the same time
            return None
        wrong.take(address, now)
        return 401

    def log_in(
        self, answer: Response, *, path: str, secure: bool, token: str | None = None
    ) -> None:
        """Give a browser that had the right token its signed cookie, for `path` alone.

        `token` is the one that it had, the site's by default.
        """
        logins = login_signer(self._secrets, token or self._token)
        until = str(int(self._clock()) + LOGIN_SECONDS)
        answer.set_cookie(
            COOKIE, logins.sign(until), max_age=LOGIN_SECONDS,
            path=path, httponly=True, samesite="strict", secure=secure,
        )  # fmt: skip

    def link(self, days: int, whose: str | None, own: str | None) -> tuple[str, float]:
        """What a link to the report of `whose` carries, and until when: up to LINK_DAYS."""
        until = int(self._clock()) + min(max(days, 1), LINK_DAYS) * 86_400
        signer = link_signer(self._secrets, self._token or own)
        return signer.sign(f"{until} {whose or ''}"), float(until)

    def is_linked(self, link: str | None, whose: str | None, own: str | None) -> bool:
        """Whether somebody has a link to this report that has not ended."""
        for token in (self._token, own) if link else ():
            text = link_signer(self._secrets, token).unsign(link or "") if token else None
            until, _, known = (text or "").partition(" ")
            if until.isdecimal() and int(until) > self._clock() and known == (whose or ""):
                return True
        return False

    def _has_login(self, headers: Mapping[str, str], own: str | None) -> bool:
        tokens = [token for token in (self._token, own) if token is not None]
        for cookie in headers.get("cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            for token in tokens if name == COOKIE else ():
                until = login_signer(self._secrets, token).unsign(value.strip('"'))
                if until is not None and until.isdecimal() and int(until) > self._clock():
                    return True
        return False
