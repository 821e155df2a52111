"""insights: Meta's own view on a terminal, beside our numbers."""

import sys
import time

import click

from capi_middleware.cli import terminal
from capi_middleware.insights.looking import refresh
from capi_middleware.insights.model import Comparison, Estimate, Insights, is_wrong, problems
from capi_middleware.report.numbers import percent
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window

_NUMBERS = ("ours", "Meta's")
#: How a number of a measure is written; the others are shares.
_FORMS = {
    "browser events": "{:,.0f}",
    "server events": "{:,.0f}",
    "freshness": "{:g} s",
    "match quality": "{:g} of 10",
}


@click.command(short_help="What Meta says about the events, beside our numbers.")
@click.option("--fetch", is_flag=True, help="Ask Meta now; without it, what was asked last.")
@terminal.JSON
@click.pass_obj
def insights(source: str, fetch: bool, as_json: bool) -> None:
    """What Meta says about the events, beside our numbers of the last seven days.

    Exit code 1 when Meta refused or did not answer a question, 3 when it was never asked.
    """
    with terminal.opened(source) as capi:
        if fetch:
            with terminal.progress("asking Meta"):
                refresh(capi.config, capi.store)
        report = read_report(capi.store, capi.config, parse_window({}, time.time()))
    found, compared = report.insights, report.comparisons
    if found is None:
        told = "Meta was never asked: capi-middleware insights --fetch"
        terminal.print_json({"error": told}) if as_json else click.echo(told, err=True)
        sys.exit(terminal.NO_DATA)
    if as_json:
        terminal.print_json(
            {"insights": found, "comparisons": compared, "estimates": report.estimates}
        )
    else:
        _print(found, compared, report.estimates)
    if is_wrong(found):
        sys.exit(terminal.WRONG)


def _print(
    found: Insights, compared: list[Comparison], estimates: list[Estimate]
) -> None:  # fmt: skip
    terminal.print_line(f"Asked {found.fetched_at}")
    for what, problem in problems(found):
        state = problem.state.replace("_", " ")
        terminal.print_line(f"{state}: {what}: {problem.explanation}", problem.fix)
    agreeing = [one for one in compared if one.verdict in ("agrees", "good")]
    columns = ("event", "pixel", "measure", *_NUMBERS, "verdict")
    rows = (
        (one.event_name, one.pixel_id, one.measure, _amount(one, one.ours),
         one.told.replace("_", " ") or _amount(one, one.metas), one.verdict)
        for one in compared if one not in agreeing
    )  # fmt: skip
    empty = "" if agreeing else "Meta told no numbers."
    if len(agreeing) < len(compared) or empty:
        terminal.print_table(columns, rows, numbers=_NUMBERS, empty=empty)
    if agreeing:
        names = ", ".join(f"{one.measure} of {one.event_name}" for one in agreeing)
        terminal.print_line(f"{len(agreeing)} of {len(compared)} agree or are good: {names}")
    for one in compared:
        if one.verdict in ("differs", "low"):
            terminal.print_line(
                f"{one.event_name} at pixel {one.pixel_id}: {one.explanation}", one.fix
            )
    for guess in estimates:
        what = f"{guess.event_name} at pixel {guess.pixel_id}: a {guess.key} number on all events"
        said = f"not enough history to say ({guess.days} days, or the share did not move)"
        if guess.gain is not None:
            said = (
                f"may change Meta's score of {guess.score:g} by {guess.gain:+.1f} "
                f"({guess.low:+.1f} to {guess.high:+.1f})"
            )
        terminal.print_line(f"{what}: {said}")
    if found.opportunity and found.opportunity.score is not None:
        account = found.opportunity
        terminal.print_line(f"Opportunity score of {account.account}: {account.score:g} of 100")
        for tip in found.opportunity.recommendations:
            lift = f" (+{tip.score_lift:g})" if tip.score_lift is not None else ""
            name = f"{tip.title} ({tip.type})" if tip.title else tip.type
            terminal.print_line(f"  {name}{lift}: {tip.body}")


def _amount(one: Comparison, value: float | None) -> str:
    if value is None:
        return "no data"
    form = _FORMS.get(one.measure)
    return form.format(value) if form else percent(value)
