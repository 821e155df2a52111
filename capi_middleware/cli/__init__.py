"""The command line: watch over a setup, deliver on its own, mend what went wrong."""

import sys

try:
    import click
    import rich  # noqa: F401 - named here so that what lacks is said once
except ImportError:
    sys.exit("capi-middleware: found no click and rich, expected them: "
             "pip install 'capi-middleware[cli]'")  # fmt: skip

from capi_middleware import __version__
from capi_middleware.cli.check import check
from capi_middleware.cli.dead_letters import dead_letters
from capi_middleware.cli.events import events
from capi_middleware.cli.importing import import_events
from capi_middleware.cli.init import init
from capi_middleware.cli.insights import insights
from capi_middleware.cli.mcp import mcp
from capi_middleware.cli.reconcile import reconcile
from capi_middleware.cli.report import report
from capi_middleware.cli.source import take_source
from capi_middleware.cli.tail import tail
from capi_middleware.cli.terminal import Program
from capi_middleware.cli.upkeep import deliver, forget, health, migrate, prune


@click.group(
    cls=Program,
    epilog="Exit codes: 0 fine, 1 something is wrong or under its target, 2 used wrongly, 3 too "
    "little data to say, 4 the configuration is broken.",
)
@click.version_option(__version__)
def main() -> None:
    """Meta's Conversions API for Python web apps."""


for _command in (init, check, report, events, tail, insights, mcp, reconcile, import_events,
                deliver, health, dead_letters, migrate, prune, forget):  # fmt: skip
    main.add_command(_command)
take_source(main, "CAPI_CONFIG")
