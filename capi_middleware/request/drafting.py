"""Drafting: the events of one request, from its matched routes and from track()."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from capi_middleware.capture.reading import RequestReader
from capi_middleware.config.expressions import MISSING, fill, leaves
from capi_middleware.config.index import Match
from capi_middleware.errors import ConfigError
from capi_middleware.events import Event
from capi_middleware.lazily import Part
from capi_middleware.meta.user_data import UserData, unknown_keys
from capi_middleware.private import Private
from capi_middleware.request.asking import Asker
from capi_middleware.request.issuing import Issuer
from capi_middleware.steps import Steps


class Draft(Private, Struct):
    """An event in the making: from a matched route, from track(), or from both."""

    event: Event
    match: Match | None = None
    tracked: bool = False


class Drafting(Part):
    """Collects drafts until they are issued. `matches` are the routes that took the request."""

    _issuer: Issuer
    _asker: Asker
    _reader: RequestReader
    matches: list[Match]
    drafts: list[Draft] = field(default_factory=list)
    #: The user_data that every event of this request has.
    shared: dict[str, Any] = field(default_factory=dict)

    def track(
        self,
        event_name: str,
        custom_data: Mapping[str, Any],
        user_data: UserData | None,
        dedupe_key: object,
    ) -> Draft:
        """A new event, or the one that a route already made of this request."""
        draft = self._drafted(event_name, dedupe_key)
        draft.tracked = True
        draft.event.custom_data |= self._issuer.custom_data(event_name, custom_data)
        if user_data is not None:
            draft.event.user_data |= self._issuer.hashed(user_data)
        if draft.match is None:
            self._issuer.check(draft.event)
        return draft

    def add_page_view(self) -> None:
        """The PageView of a page, before its other events; a page has one."""
        if any(draft.event.event_name == "PageView" for draft in self.drafts):
            return
        issuer = self._issuer
        event = issuer.new_event("PageView", issuer.mint("PageView", None), None)
        event.user_data = dict(self.shared)
        if event.pixel_ids:
            self.drafts.insert(0, Draft(event))

    def _drafted(self, event_name: str, dedupe_key: object) -> Draft:
        for draft in self.drafts:
            if not draft.tracked and draft.event.event_name == event_name:
                return draft
        taken = [draft.match for draft in self.drafts]
        match = next(
            (
                one
                for one in self.matches
                if one.route.event_name == event_name and one not in taken
            ),
            None,
        )
        if dedupe_key is None and match is not None:
            dedupe_key = self._filled(match, "dedupe_key", self._called_now(match))
        event_id = self._issuer.mint(event_name, dedupe_key)
        for draft in self.drafts:
            if draft.event.event_id == event_id:
                return draft
        route = match.route if match is not None else None
        draft = Draft(self._issuer.new_event(event_name, event_id, route), match)
        self.drafts.append(draft)
        return draft

    def _called_now(self, match: Match) -> dict[int, Any]:
        """The dedupe_key of a route that is a plain callable: track() cannot wait."""
        rule = match.route.templates.get("dedupe_key")
        return {id(rule): self._asker.call_now(rule)} if callable(rule) else {}

    def complete(self, page_view: bool) -> Steps[None]:
        """Turn the matched routes into events and complete those that track() began."""
        done: set[str] = set()
        rule = self._issuer.user_data
        if rule is not None and (self.drafts or self.matches or page_view):
            self.shared = yield from self._user_data(rule, None)
        for match in self.matches:
            name = match.route.event_name
            if name in done:
                continue
            done.add(name)
            called: dict[int, Any] = {}
            for rule in match.route.callables:
                called[id(rule)] = yield from self._asker.call(rule)
            draft = None
            for one in self.drafts:
                if one.match is match:
                    draft = one
            if draft is None:
                event_id = self._issuer.mint(name, self._filled(match, "dedupe_key", called))
                if event_id in [one.event.event_id for one in self.drafts]:
                    continue
                draft = Draft(self._issuer.new_event(name, event_id, match.route), match)
                self.drafts.append(draft)
            filled = self._filled(match, "custom_data", called)
            event = draft.event
            if filled or name == "Purchase":
                event.custom_data = self._issuer.custom_data(name, filled or {}) | event.custom_data
            template = match.route.templates.get("user_data")
            if template is not None:
                given = yield from self._user_data(template, match)
                event.user_data = given | event.user_data
        if self.shared:
            for draft in self.drafts:
                draft.event.user_data = self.shared | draft.event.user_data

    def _filled(self, match: Match, name: str, called: Mapping[int, Any]) -> Any:
        template = match.route.templates.get(name)
        if template is None or name in match.route.constants:
            return template
        self._reader.path = match.parameters
        missing: list[str] = []
        value = fill(template, self._reader, called, missing)
        if missing:
            self._issuer.left_out(match.route.event_name, missing)
        return None if value is MISSING else value

    def _user_data(self, rule: Any, match: Match | None) -> Steps[dict[str, Any]]:
        """The hashed user_data that a parsed rule gives: a callable, or a mapping."""
        if rule is None:
            return {}
        if callable(rule):
            value = yield from self._asker.call(rule)
        else:
            called: dict[int, Any] = {}
            for leaf in leaves(rule):
                if callable(leaf):
                    called[id(leaf)] = yield from self._asker.call(leaf)
            if match is not None:
                self._reader.path = match.parameters
            value = fill(rule, self._reader, called, [])
        try:
            if isinstance(value, Mapping):
                unknown = unknown_keys(value)
                self._issuer.left_out("", [f"user_data.{key}" for key in unknown])
                value = UserData(**{key: value[key] for key in value if key not in unknown})
            return self._issuer.hashed(value) if isinstance(value, UserData) else {}
        except (TypeError, ConfigError) as error:
            self._issuer.shield.caught(error, "user_data")
            return {}
