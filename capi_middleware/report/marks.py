"""Marks: releases and alerts that the timeline of the report shows, kept in the store for all."""

from collections.abc import Sequence

import msgspec

from capi_middleware.report.model import Mark
from capi_middleware.store.store import Store

NAME = "marks"
#: So many of each kind are kept, the newest.
MOST = 200
#: What a release may be called, in characters.
LONGEST = 80
_MOST_TRIES = 20


def marks_of(store: Store) -> list[Mark]:
    """All that are kept, in the order of their times."""
    return _decoded(store.kept(NAME))


def remember(store: Store, *new: Mark) -> None:
    """Keep these. A release is kept when it is seen for the first time."""
    for _ in range(_MOST_TRIES if new else 0):
        body = store.kept(NAME)
        known = _decoded(body)
        releases = {one.text for one in known if one.kind == "release"}
        added = [one for one in new if one.kind != "release" or one.text not in releases]
        if not added:
            return
        every = sorted([*known, *added], key=lambda one: one.at)
        kept = [
            one
            for kind in ("alert", "release")
            for one in [mark for mark in every if mark.kind == kind][-MOST:]
        ]
        told = msgspec.json.encode(sorted(kept, key=lambda one: one.at))
        if store.keep(NAME, told, instead_of=body):
            return


def _decoded(body: bytes | None) -> list[Mark]:
    try:
        return msgspec.json.decode(body, type=list[Mark]) if body else []
    except msgspec.DecodeError:
        return []  # of another version


def within(marks: Sequence[Mark], start: str, end: str) -> list[Mark]:
    """Those from `start` to `end`, ISO 8601 in UTC."""
    return [one for one in marks if start <= one.at < end]
