"""Drafts are the events of one request until they are issued: from its routes and from track()."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from capi_middleware.config.expressions import MISSING, Call, Called, Template, fill, leaves
from capi_middleware.config.pixels import Tenant
from capi_middleware.config.routes import Match
from capi_middleware.events import Event
from capi_middleware.meta.user_data import UserData
from capi_middleware.private import Private
from capi_middleware.request.issuing import Issuer
from capi_middleware.request.visit import Visit, Waits
from capi_middleware.store.orders import MOMENT, Question


class Draft(Private, Struct, eq=False):
    """An event in the making: from a matched route, from track(), or from both.

    `said` is what track() said of it, which goes before what its route says.
    """

    event: Event
    match: Match | None = None
    tracked: bool = False
    said: Mapping[str, Any] = {}


class Drafts(Private, Struct, eq=False):
    """The drafts of one request. `matches` are the routes that took it.

    `shared` is the user_data that every event of the request has, `tenant` whose they are (None
    before that is known). `orders` are those that have a
    dedupe_key, until it is known whether they may leave.
    """

    _issuer: Issuer
    matches: list[Match]
    events: list[Draft] = []
    shared: dict[str, Any] = {}
    tenant: Tenant | None = None
    orders: list[tuple[Draft, Question]] = []

    def track(
        self,
        visit: Visit,
        event_name: str,
        custom_data: Mapping[str, Any],
        user_data: UserData | None,
        dedupe_key: object,
    ) -> Draft:
        """A new event, or the one that a route already made of this request."""
        issuer = self._issuer
        draft = self._drafted(visit, event_name, dedupe_key)
        draft.tracked = True
        issuer.fill(draft.event, custom_data, user_data)
        if self.shared:  # the response has started: what all events have is known
            draft.event.user_data = self.shared | draft.event.user_data
        if draft.match is None and issuer.config.debug:
            issuer.check(draft.event)
        return draft

    def add_page_view(self) -> None:
        """The PageView of a page, before its other events; a page has one."""
        for draft in self.events:
            if draft.event.event_name == "PageView":
                return
        event = self._issuer.new_event("PageView", None, None, tenant=self.tenant)
        event.user_data = dict(self.shared)
        if event.pixel_ids:
            self.events.insert(0, Draft(event))

    def _drafted(self, visit: Visit, event_name: str, dedupe_key: object) -> Draft:
        for draft in self.events:
            if not draft.tracked and draft.event.event_name == event_name:
                return draft
        match: Match | None = None
        for one in self.matches:
            if one.route.event_name == event_name and all(
                draft.match is not one for draft in self.events
            ):
                match = one
                break
        if dedupe_key is None and match is not None:
            template = match.route.templates.get("dedupe_key")
            called = {template: visit.ask_now(template)} if isinstance(template, Call) else {}
            dedupe_key = self._key(visit, match, called)
        route = match.route if match is not None else None
        whose = visit.whose(now=False) if self._issuer.tenants is not None else None
        event = self._issuer.new_event(event_name, dedupe_key, route, tenant=whose)
        for draft in self.events:
            if draft.event.event_id == event.event_id:
                return draft
        draft = Draft(event, match)
        self.events.append(draft)
        if event.event_id[0] == "k":
            self.recall(draft)
        return draft

    def recall(self, draft: Draft) -> None:
        """Ask whether an order was tracked before; see `silence`."""
        self.orders.append((draft, self._issuer.store.recall(draft.event.event_id)))

    async def silence(self, waits: Waits) -> None:
        """Leave out the orders of which one more copy would count twice."""
        orders, self.orders = self.orders, []
        end = time.monotonic() + self._issuer.store.recall_seconds
        for _, question in orders:
            with suppress(Exception):  # which is the answer
                await waits.answer(question, max(0.0, end - time.monotonic()))
        self._leave_out(orders, 0.0)

    def silence_now(self) -> None:
        """The same where nobody can wait long: see MOMENT."""
        orders, self.orders = self.orders, []
        self._leave_out(orders, MOMENT)

    def _leave_out(self, orders: list[tuple[Draft, Question]], seconds: float) -> None:
        for draft, question in orders:
            if self._issuer.is_repeated(draft.event, question, seconds):
                self.events = [one for one in self.events if one is not draft]

    async def complete(self, visit: Visit, waits: Waits, *, page_view: bool) -> None:
        """Turn the matched routes into events and complete those that track() began."""
        issuer = self._issuer
        rule = issuer.user_data
        if rule is not None and (self.events or self.matches or page_view):
            self.shared = await self._user_data(visit, waits, rule, {})
        done: list[str] = []
        for match in self.matches:
            route = match.route
            name = route.event_name
            if name in done:
                continue
            done.append(name)
            called: dict[Call, Any] = {}
            for call in route.callables:
                called[call] = await visit.ask(call, waits)
            draft: Draft | None = None
            for one in self.events:
                if one.match is match:
                    draft = one
            if draft is None:
                key = None
                if "dedupe_key" in route.templates:
                    key = self._key(visit, match, called)
                event = issuer.new_event(name, key, route, tenant=self.tenant)
                if key is not None and event.event_id in [
                    one.event.event_id for one in self.events
                ]:
                    continue
                draft = Draft(event, match)
                self.events.append(draft)
                if event.event_id[0] == "k":
                    self.recall(draft)
            event = draft.event
            if "said" in route.templates:
                told = self._filled(visit, match, "said", called) or {}
                told = {key: one for key, one in told.items() if key not in draft.said}
                issuer.say(event, told, strict=issuer.config.debug)
            filled = self._filled(visit, match, "custom_data", called)
            if filled or name == "Purchase":
                event.custom_data = issuer.custom_data(name, filled or {}) | event.custom_data
            template = route.templates.get("user_data")
            if template is not None:
                given = await self._user_data(visit, waits, template, match.parameters)
                event.user_data = given | event.user_data
        if self.shared:
            for draft in self.events:
                draft.event.user_data = self.shared | draft.event.user_data

    def _key(self, visit: Visit, match: Match, called: Called) -> Any:
        """The dedupe_key of a route; the number 0 of an address is as good as any other."""
        key = self._filled(visit, match, "dedupe_key", called)
        return str(key) if type(key) is int and key in match.parameters.values() else key

    def _filled(self, visit: Visit, match: Match, name: str, called: Called) -> Any:
        route = match.route
        template = route.templates.get(name)
        if template is None or name in route.constants:
            return template
        missing: list[str] = []
        value = fill(template, visit.fields, match.parameters, called, missing)
        if missing:
            self._issuer.left_out(route.event_name, missing)
            self._tell_lack(visit, route.event_name)
        return None if value is MISSING else value

    async def _user_data(
        self, visit: Visit, waits: Waits, rule: Template, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The hashed user_data that a parsed rule gives: a callable, or a mapping."""
        if isinstance(rule, Call):
            value = await visit.ask(rule, waits)
        else:
            called: dict[Call, Any] = {}
            for leaf in leaves(rule):
                if isinstance(leaf, Call):
                    called[leaf] = await visit.ask(leaf, waits)
            value = fill(rule, visit.fields, parameters, called, [])
            self._tell_lack(visit, "")
        return self._issuer.given_user_data(value)

    def _tell_lack(self, visit: Visit, event_name: str) -> None:
        """Count why the body of the request did not show what was asked for."""
        lack, visit.fields.lack = visit.fields.lack, ""
        if lack:
            self._issuer.left_out(event_name, [lack])
            self._issuer.notices.say(lack)
