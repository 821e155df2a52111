"""Health: does delivery get on? What waits, for how long, and what stands still."""

from collections.abc import Iterable, Mapping, Sequence

from capi_middleware.meta.codes import meaning_of
from capi_middleware.report.model import Flag, Health, PixelHealth, Severity
from capi_middleware.report.window import iso
from capi_middleware.store.records import Backlog, Pause

#: Meta wants events within an hour ("Using the API"); in seconds.
STALE = 3600.0


def health_of(
    depth: Mapping[str, int],
    backlog: Sequence[Backlog],
    pauses: Sequence[Pause],
    *,
    pixel_ids: Iterable[str],
    delivering: bool,
) -> Health:
    """The state of delivery, for all configured pixels and those that still have events."""
    waiting = {one.pixel_id: one for one in backlog}
    paused = {one.pixel_id: one for one in pauses}
    known = dict.fromkeys([*pixel_ids, *waiting])
    pixels = []
    for pixel_id in known:
        load, pause = waiting.get(pixel_id), paused.get(pixel_id)
        pixels.append(
            PixelHealth(
                pixel_id=pixel_id,
                waiting=load.waiting if load else 0,
                oldest_seconds=round(load.oldest, 1) if load else 0.0,
                paused_until=iso(pause.until) if pause else None,
                paused_because=pause.reason if pause else None,
                token_refused=bool(pause and pause.token),
            )
        )
    return Health(outbox=dict(sorted(depth.items())), pixels=pixels, delivering=delivering)


def flags_of_health(health: Health) -> list[Flag]:
    """What somebody should look at now."""
    flags = []
    if not health.delivering:
        flags.append(
            _flag(
                "delivery_not_running", "critical", "", 0, 1,
                "A delivery thread of this process has ended.",
                "Restart the process and report the error in its log; no event is lost.",
            )
        )  # fmt: skip
    for one in health.pixels:
        if one.paused_because is not None:
            flags.append(
                _flag(
                    "pixel_paused", "critical" if one.token_refused else "warning", one.pixel_id,
                    one.waiting, 0,
                    f"{one.waiting:,} events wait: Meta answered {one.paused_because!r}, so the "
                    f"pixel rests until {one.paused_until}.",
                    meaning_of(one.paused_because)[1],
                )
            )  # fmt: skip
        elif one.oldest_seconds > STALE:
            flags.append(
                _flag(
                    "delivery_stale", "critical", one.pixel_id, one.oldest_seconds, STALE,
                    f"{one.waiting:,} events wait, the oldest for {one.oldest_seconds / 3600:.1f} "
                    "hours; Meta wants them within one.",
                    "Check that this machine reaches graph.facebook.com and that a process "
                    "delivers: Config(delivery=True), or `capi-middleware deliver`.",
                )
            )  # fmt: skip
    return flags


def _flag(
    code: str, severity: Severity, pixel_id: str, value: float, target: float, text: str, fix: str
) -> Flag:
    return Flag(
        code=code,
        severity=severity,
        event_name="",
        pixel_id=pixel_id,
        value=value,
        target=target,
        explanation=text,
        fix=fix,
    )
