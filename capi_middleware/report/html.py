"""The faces of the parity report: JSON and a page."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache, partial
from itertools import groupby
from time import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec.structs import replace

from capi_middleware.insights.model import trends
from capi_middleware.report.causes import CAUSES
from capi_middleware.report.flags.registry import TEXTS, Texts
from capi_middleware.report.glance import outcome, rank
from capi_middleware.report.match_keys import PRIORITIES
from capi_middleware.report.model import TARGET, MatchKeyAdvice, Report, Trend
from capi_middleware.report.numbers import MIN_EVENTS, goal, percent, verdict
from capi_middleware.report.pictures import timeline
from capi_middleware.report.tables import TABLES, rows_of
from capi_middleware.report.window import Window, is_of, iso

if TYPE_CHECKING:
    import jinja2

#: What the page's address may say.
_TIMES = ("from", "to", "days")
_FILTERS = (*_TIMES, "event", "pixel")


def to_json(report: Report, table: str = "") -> bytes:
    """`report` as the JSON of parity.json, or one table of it as a list of rows."""
    return msgspec.json.encode(rows_of(report, table) if table else report)


def to_html(report: Report, *, path: str, query: str, nonce: str) -> str:
    """`report` as a page that needs no script and no other file.

    Args:
        report: what to show.
        path: where this page is served; the JSON is at the same path with ".json" after it.
        query: the query string that asked for it, for the form and the link to the JSON.
        nonce: of the Content-Security-Policy's style-src, for the one style element.
    """
    asked = _asked(query)
    kept = {one: value for one, value in asked.items() if one not in _FILTERS}
    of_events = {one: value for one, value in asked.items() if one in ("event", "tenant")}

    def link(**changes: object) -> str:
        """This page with other filters, without those that are ""."""
        every = {one: value for one, value in (asked | changes).items()
                 if value != "" or one in kept}  # fmt: skip
        return f"{path}?{urlencode(every)}"

    report = replace(report, events=sorted(report.events, key=lambda one: rank(outcome(one))))
    shown = _shown(report)
    drawn = (
        partial(timeline, shown, window=_window(report), now=time(), marks=report.marks)
        if shown
        else None
    )
    return filled(
        "parity.html.jinja",
        report=report,
        shown=shown,
        wide=drawn(width=800, height=190) if drawn else None,
        narrow=drawn(width=350, height=220) if drawn else None,
        verdicts=[verdict(event)[0] for event in report.events],
        target=TARGET,
        goal=goal(TARGET),
        fewest=MIN_EVENTS,
        advice=_by_fix(report.match_key_advice),
        priorities=PRIORITIES,
        chosen=report.now is not None and report.now.window == report.window,
        event=asked.get("event", ""),
        pixel=asked.get("pixel", ""),
        kept=kept,
        now_days=next((n for n in (1, 7, 28) if is_of(_window(report), n, time())), None),
        path=path,
        events_url=f"{path}/events" + (f"?{urlencode(of_events)}" if of_events else ""),
        link=link,
        json_url=f"{path}.json?{urlencode(asked)}",
        csv_url=f"{path}.csv?{urlencode(asked)}",
        tables=TABLES,
        help=f"{path}/help" + (f"?{urlencode(kept)}" if kept else ""),
        meta_trends=trends(report.insights) if report.insights else [],
        nonce=nonce,
    )


def _asked(query: str) -> dict[str, str]:
    """What a query string asks for; no tenant is not the same as that of the host."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    asked = {one: given[one] for one in _FILTERS if given.get(one)}
    return asked | {one: given[one] for one in ("tenant", "link") if one in given}


def failed_html(error: str, *, path: str, query: str, nonce: str) -> str:
    """The page that says what is wrong with a question; arguments as in `to_html`."""
    kept = {one: value for one, value in _asked(query).items() if one not in _TIMES}
    back = f"{path}?{urlencode(kept)}" if kept else path
    return filled("failed.html.jinja", error=error, back=back, nonce=nonce)


def link_html(
    address: str, until: float, days: int, *, path: str, kept: Mapping[str, str], nonce: str
) -> str:
    """The page with a link to the report that ends at `until`; arguments as in `to_html`."""
    told = {"address": address, "until": iso(until), "days": days, "kept": kept}
    return filled("link.html.jinja", **told, path=path, nonce=nonce)


def login_html(action: str, error: str = "", *, nonce: str = "") -> str:
    """The page that asks for the report_token and posts it to `action` as `token`.

    `error` is a sentence to show above the form. `nonce` as in `to_html`; without one the page
    has no style.
    """
    return filled("login.html.jinja", action=action, error=error, nonce=nonce)


def help_html(path: str, *, nonce: str) -> str:
    """The page that tells what each flag and each cause means, and what to do.

    `path` is where the report is; `nonce` as in `to_html`.
    """
    causes = {
        side: {word: _Entry(one.title, one.plain, [f"Because {one.because}."], [one.fix], one.line)
               for word, one in found.items()}
        for side, found in CAUSES.items()
    }  # fmt: skip
    return filled(
        "help.html.jinja", path=path, nonce=nonce, goal=goal(TARGET), **causes,
        flags={code: _entry(one) for code, one in TEXTS.items()},
    )  # fmt: skip


class _Entry(NamedTuple):
    """What the help says of one flag or cause."""

    title: str
    plain: str
    told: Sequence[str]
    fixes: Sequence[str]
    line: str


#: A field of a template, and braces that are none.
_FIELD = re.compile(r"\{\{|\}\}|\{[^{}]*\}")
#: What to do where the report alone knows it.
_DEPENDS = "The card of the report says what to do, by what it found."
_OF_CAUSE = "What keeps most of the copies away has its own fix, see below why a copy is missing."


def _entry(texts: Texts) -> _Entry:
    """The texts of a flag, with "…" for what only a report knows."""
    title, plain, fix, line = map(_blank, (texts.title, texts.plain, texts.fix, texts.line))
    cases = [case["fix"] for case in texts.words.values() if "fix" in case]
    known = CAUSES["server"].get(texts.cause)
    if fix == "…":
        fix = known.fix if known else _OF_CAUSE if "{cause." in texts.fix else _DEPENDS
    fixes = cases or [fix]
    return _Entry(title, plain, [], list(dict.fromkeys(fixes)), "" if line == "…" else line)


def _blank(template: str) -> str:
    return _FIELD.sub(lambda one: one[0][0] if one[0] in ("{{", "}}") else "…", template)


@cache
def _environment() -> "jinja2.Environment":
    # Imported only now: most processes never show the report.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("capi_middleware.report"),
        autoescape=jinja2.select_autoescape(("html.jinja",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"percent": _percent, "n": "{:,}".format, "runs": _runs, "money": _money}
    return environment


def _percent(share: float | None) -> str:
    return percent(share).replace(" %", "\u00a0%")  # never apart at the end of a line


def _by_fix(advice: Sequence[MatchKeyAdvice]) -> list[list[MatchKeyAdvice]]:
    """What one fix adds comes together, so that it is said once."""
    together: dict[tuple[str, str], list[MatchKeyAdvice]] = {}
    for one in advice:
        together.setdefault((one.key, one.fix), []).append(one)
    return list(together.values())


def _window(report: Report) -> Window:
    start, end = (datetime.fromisoformat(one) for one in (report.window.start, report.window.end))
    return Window(start.timestamp(), end.timestamp())


def _shown(report: Report) -> Trend | None:
    """What the timeline is about: the first of what the page begins with."""
    known = {(one.event_name, one.pixel_id): one for one in report.trends}
    first = report.now.outcomes[:1] if report.now else []
    places = [(one.event_name, one.pixel_id) for one in first]
    return next((known[one] for one in [*places, *known] if one in known), None)


def _money(units: int, decimals: int) -> str:
    """An amount in the smallest unit of a currency with `decimals`, as people write it."""
    return f"{Decimal(units).scaleb(-decimals):,.{decimals}f}"


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float | None]]]:
    """The stretches of `values` without a gap, each value with its place."""
    stretches = groupby(enumerate(values), key=lambda one: one[1] is not None)
    return [list(stretch) for is_known, stretch in stretches if is_known]


def filled(template: str, **values: object) -> str:
    """The text that a file of templates/ gives with these values."""
    return _environment().get_template(template).render(values)
