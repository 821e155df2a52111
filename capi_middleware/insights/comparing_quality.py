"""Comparing quality: our shares and times of one event beside Meta's. Pure."""

from capi_middleware.insights.model import (
    ENOUGH,
    Comparison,
    EventQuality,
    Measure,
    Verdict,
)
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.report.model import TARGET, EventReport
from capi_middleware.report.numbers import percent

#: Shares differ when they are further apart than this.
APART = 0.1
#: Meta's advice for the event match quality.
GOOD_QUALITY = 6.0
#: user_data keys by the names that the Dataset Quality API uses for them.
_KEYS = {key.word: name for name, key in MATCH_KEYS.items() if key.word}


def compare_quality(event: EventReport, quality: EventQuality) -> list[Comparison]:
    """What the Dataset Quality API says about one event, beside our report on it."""
    made = (
        _coverage(event, quality),
        _freshness(event, quality),
        _dedupe_key(event, quality),
        _match_keys(event, quality),
        _match_quality(event, quality),
    )
    return [one for one in made if one is not None]


def _made(
    event: EventReport,
    measure: Measure,
    ours: float | None,
    metas: float | None,
    verdict: Verdict,
    explanation: str,
    fix: str = "",
    told: str = "",
) -> Comparison:
    return Comparison(
        event_name=event.event_name,
        pixel_id=event.pixel_id,
        measure=measure,
        ours=ours,
        metas=metas,
        verdict=verdict,
        explanation=explanation,
        fix=fix,
        told=told,
    )


def _coverage(event: EventReport, quality: EventQuality) -> Comparison | None:
    metas, ours = quality.coverage, event.coverage
    if metas is None:
        return None
    goal = quality.coverage_goal or TARGET
    stands = "at or above" if metas >= goal else "below"
    text = f"Meta's event coverage of the last 7 days is {percent(metas)}, {stands} its goal of " \
           f"{percent(goal)}"  # fmt: skip
    if ours is None or event.browser < ENOUGH:
        return _made(
            event, "coverage", ours, metas, "unknown",
            f"{text}; our own window has {event.browser:,} browser events, too few to compare.",
        )  # fmt: skip
    text += f"; ours in this window is {percent(ours)}"
    if abs(ours - metas) <= APART:
        return _made(event, "coverage", ours, metas, "agrees", f"{text}: they agree.")
    if metas < ours:
        return _made(
            event, "coverage", ours, metas, "differs",
            f"{text}: Meta sees browser events that we do not, without our event_id, or the setup "
            "improved within these days.",
            "Look for a second installation of this pixel (tag manager, theme) and remove it, or "
            "set mirror so that its events get an event_id.",
        )  # fmt: skip
    return _made(
        event, "coverage", ours, metas, "differs",
        f"{text}: Meta pairs events that we do not, by external_id or fbp or from another sender, "
        "or the setup got worse within these days.",
        "Look at what is missing on the server in the table above; another sender to this dataset "
        "is listed in Events Manager → Settings → Conversions API.",
    )  # fmt: skip


def _freshness(event: EventReport, quality: EventQuality) -> Comparison | None:
    told, ours = quality.upload_frequency, event.freshness_seconds.p95
    if not told:
        return None
    word = told.replace("_", " ").lower()
    quick = word in ("real time", "realtime")
    if ours is None:
        text = f"Meta sees these events arrive {word}; we delivered none in this window."
        return _made(event, "freshness", None, None, "unknown", text, told=told)
    text = f"Meta sees these events arrive {word}; 95 % of ours were accepted within {ours:g} s"
    if quick or ours > 3600:
        return _made(event, "freshness", ours, None, "agrees", f"{text}: they agree.", told=told)
    return _made(
        event, "freshness", ours, None, "differs",
        f"{text}: another sender uploads events of this name late, or delivery stood still "
        "earlier in these days.",
        "Stop late uploads of the same event (a nightly job, an offline import), and look at "
        "Delivery for pixels that rest.",
        told=told,
    )  # fmt: skip


def _dedupe_key(event: EventReport, quality: EventQuality) -> Comparison | None:
    key = next((one for one in quality.dedupe_keys if one.key == "event_id"), None)
    if key is None or key.browser is None or key.server is None:
        return None
    text = (
        f"Meta finds an event_id on {percent(key.browser)} of the browser and on "
        f"{percent(key.server)} of the server events; all of ours carry one"
    )
    lower = min(key.browser, key.server)
    if lower >= 1 - APART:
        return _made(event, "dedupe key", 1.0, lower, "agrees", f"{text}: they agree.")
    side = "browser" if key.browser <= key.server else "server"
    fix = (
        "Look for pixel code that fires this event by itself (tag manager, theme): remove it, or "
        "set mirror so that it gets an event_id."
        if side == "browser" else
        "Stop the other sender of this event to the dataset, or let it send the same event_id."
    )  # fmt: skip
    return _made(
        event, "dedupe key", 1.0, lower, "differs",
        f"{text}: {side} events that are not ours lack it and may count twice.", fix,
    )  # fmt: skip


def _match_keys(event: EventReport, quality: EventQuality) -> Comparison | None:
    """The key on whose share we and Meta differ most."""
    gaps = [
        (abs(one.share - event.match_keys.get(key, 0.0)), key, one.share)
        for one in quality.match_keys
        if one.share is not None and (key := _KEYS.get(one.identifier.lower())) is not None
    ]
    if not gaps or event.server < ENOUGH:
        return None
    gap, key, metas = max(gaps)
    ours = event.match_keys.get(key, 0.0)
    text = f"Meta finds {key} in {percent(metas)} of the server events, we sent it in " \
           f"{percent(ours)}"  # fmt: skip
    if gap <= APART:
        return _made(event, "match keys", ours, metas, "agrees", f"{text}: they agree.")
    return _made(
        event, "match keys", ours, metas, "differs",
        f"{text}: another sender posts this event too, or what the app supplies changed within "
        "these days.",
        "Give every server event the same keys (user_data in the config or in track()), and see in "
        "Events Manager → Settings → Conversions API who else sends.",
    )  # fmt: skip


def _match_quality(event: EventReport, quality: EventQuality) -> Comparison | None:
    score = quality.match_quality
    if score is None:
        return None
    wanted = [one for one in quality.match_keys if one.potential]
    text = f"Meta scores the match quality {score:g} of 10"
    if score >= GOOD_QUALITY:
        return _made(
            event, "match quality", None, score, "good", f"{text}: {GOOD_QUALITY:g} is good."
        )
    most = max(wanted, key=lambda one: one.potential or 0, default=None)
    hint = f"Send {most.identifier} with more of these events" if most else "Send more match keys"
    more = (
        f" (Meta expects up to {percent(most.potential)} more conversions from it)"
        if most and most.potential else ""
    )  # fmt: skip
    return _made(
        event, "match quality", None, score, "low", f"{text}: {GOOD_QUALITY:g} or more is good.",
        f"{hint}{more}: see Match keys for where the app could supply them.",
    )  # fmt: skip
