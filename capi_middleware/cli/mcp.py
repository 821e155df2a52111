"""mcp: the report for assistants, by the Model Context Protocol on standard input and output."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from capi_middleware import __version__
from capi_middleware.capi import CAPI
from capi_middleware.cli.terminal import opened
from capi_middleware.errors import CapiError
from capi_middleware.report.causes import cause_of
from capi_middleware.report.inspector import parse_sought, read_events
from capi_middleware.report.model import SIDES, Report
from capi_middleware.report.read import read_report
from capi_middleware.report.window import parse_window

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

_ABOUT = (
    "What Meta got of this site's events: each event has a copy from the server and one from the "
    "browser with the same event_id. Start with `report`, then `causes` for why copies are missing "
    "and what to do. Nothing here is about a person, and nothing can be changed."
)
T = TypeVar("T")


@click.command(short_help="Give assistants the report to read, as an MCP server.")
@click.pass_obj
def mcp(source: str) -> None:
    """Give assistants the report to read, as an MCP server on standard input and output.

    Read-only: the report, causes, single events and Meta's own view. Needs
    pip install "capi-middleware[mcp]".
    """
    with opened(source) as capi:
        try:
            server = server_of(capi)
        except ImportError:
            raise click.ClickException(
                "found no mcp, expected it: pip install 'capi-middleware[mcp]'"
            ) from None
        server.run()


def server_of(capi: CAPI) -> "MCPServer[Any]":
    """An MCP server that reads what this CAPI stores."""
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    made: MCPServer[Any] = MCPServer(
        "capi-middleware", version=__version__, instructions=_ABOUT, log_level="WARNING"
    )
    only_reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    def told(read: Callable[[], T]) -> Any:
        """What `read` gives, as JSON has it; what it refuses, as a sentence for the assistant."""
        try:
            return msgspec.to_builtins(read())
        except CapiError as error:
            raise ToolError(str(error)) from None

    def read(start: str, end: str, event: str, pixel: str) -> Report:
        asked = {"from": start, "to": end, "event": event, "pixel": pixel}
        return read_report(capi.store, capi.config, parse_window(asked, time.time()))

    def report(start: str = "", end: str = "", event: str = "", pixel: str = "") -> dict[str, Any]:
        """The parity report: verdict, numbers of each event, cards that say what to do.

        `start` and `end` are ISO 8601 in UTC, the last 7 days without; `event` and `pixel` keep
        one event name or pixel id.
        """
        found: dict[str, Any] = told(lambda: read(start, end, event, pixel))
        # Long, and of little use without a picture; Meta's view has a tool of its own.
        for name in ("trends", "insights", "comparisons"):
            found.pop(name, None)
        return found

    def causes(start: str = "", end: str = "", event: str = "", pixel: str = "") -> dict[str, Any]:
        """Why copies are missing: how many by cause, what each cause means, and the fix.

        Arguments are those of `report`.
        """
        return {"causes": told(lambda: _causes(read(start, end, event, pixel)))}

    def events(id: str = "", event: str = "") -> dict[str, Any]:  # noqa: A002 - as the page has it
        """Single events with the state of both copies, the newest 50.

        `id` is an event_id, or the number of an order (what the site gave as dedupe_key); `event`
        keeps one event name.
        """
        sought = parse_sought({"id": id, "event": event})
        return {"events": told(lambda: read_events(capi.store, capi.config, sought))}

    def metas_view() -> dict[str, Any]:
        """What Meta itself said of these events when it was asked last, beside our numbers."""
        found = told(lambda: read("", "", "", ""))
        return {name: found[name] for name in ("insights", "comparisons")}

    for tool in (report, causes, events, metas_view):
        made.add_tool(tool, annotations=only_reads)
    return made


def _causes(found: Report) -> list[dict[str, Any]]:
    return [
        {"event_name": one.event_name, "pixel_id": one.pixel_id, "missing_copy": side,
         "cause": word, "events": n, "because": cause.because, "fix": cause.fix}
        for one in found.events
        for side in SIDES
        for word, n in one.missing(side).items()
        for cause in [cause_of(side, word)]
    ]  # fmt: skip
