"""deliver: delivery apart from the web processes."""

import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

import click

from capi_middleware.capi import CAPI
from capi_middleware.cli.terminal import JSON, capi_of, print_json
from capi_middleware.errors import StoreError


@click.command()
@click.option("--once", is_flag=True, help="End when nothing is due; 1 if something waits.")
@click.option("--drain", default=5.0, show_default=True, help="Seconds to end a request in flight.")
@JSON
@click.pass_obj
def deliver(source: str, once: bool, drain: float, as_json: bool) -> None:
    """Deliver what the web processes queue, until SIGTERM.

    Give the web processes Config(delivery=False). Any number of these may run at once.
    """
    capi = capi_of(source, delivery=True)
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            sys.exit(128 + number)  # asked twice: at once
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    pixels = ", ".join(pixel.id for pixel in capi.config.pixels)
    click.echo(f"delivering to {pixels}", err=True)
    capi.start()
    waiting = 0
    while not stop.wait(0.05 if once else 1.0):
        try:
            waiting = _waiting(capi)
            if once and (not waiting or _nothing_is_due(capi)):
                waiting = _waiting(capi)
                break
        except StoreError as error:
            # The couriers go on when the store is back, and say in the log what is wrong.
            if once:
                raise click.ClickException(str(error)) from None
    with suppress(StoreError):
        capi.close(drain)
    if as_json:
        print_json({"waiting": waiting})
    if once and waiting:
        click.echo(f"{waiting} events wait", err=True)
        sys.exit(1)


def _waiting(capi: CAPI) -> int:
    return sum(one.waiting for one in capi.store.backlog())


def _nothing_is_due(capi: CAPI) -> bool:
    """Whether all that waits has to wait: it was tried, or its pixel rests."""
    resting = {pause.pixel_id for pause in capi.store.pauses()}
    for pixel in capi.config.pixels:
        due = capi.store.next_due(pixel.id)
        if pixel.id not in resting and due is not None and due < 0.3:
            return False
    # Last: what a courier took meanwhile is due no more, and not done.
    return not capi.store.depth().get("leased")
