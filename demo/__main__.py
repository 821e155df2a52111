"""Runs the shop on 127.0.0.1:8000 and the fake Meta on 127.0.0.1:8001 until Ctrl-C."""

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from demo.faults import FAULTS, chosen
from demo.running import Shop, check_free, fake_meta


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="the shop's port")
    parser.add_argument("--meta-port", type=int, default=8001, help="the fake Meta's port")
    parser.add_argument("--store", default="", help="a store URL; default: a temporary file")
    parser.add_argument("--visitors", type=int, default=0, help="simulated visitors that shop")
    parser.add_argument(
        "--faults", default="", help=f"all, none, or some of {','.join(FAULTS)}; "
        "default: all where visitors are simulated, none for you",
    )  # fmt: skip
    parser.add_argument(
        "--exit", action="store_true", help="end after the visitors; with 1 when a fault was not "
        "named, or a flag raised that nobody planted",
    )  # fmt: skip
    given = parser.parse_args()
    try:
        faults = chosen(given.faults or ("all" if given.visitors else "none"))
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="capi-demo-") as folder:
        store = given.store or f"sqlite:///{Path(folder) / 'capi.db'}"
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(asyncio.run(_run(given, store, faults)))


async def _run(given: argparse.Namespace, store: str, faults: frozenset[str]) -> int:
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    check_free(given.port, "the shop", "PORT")
    check_free(given.meta_port, "the fake Meta", "META_PORT")
    async with fake_meta(given.meta_port) as meta:
        doing = f"Wait for {given.visitors} visitors" if given.visitors else "Buy something"
        shop = Shop(faults, meta, store, given.port)
        await shop.start()
        try:
            print(
                f"\n  Shop      {shop.url}/\n"
                f"  Report    {shop.url}/_capi/parity   (token: the-demo-report-token)\n"
                f"  Fake Meta {meta}/received\n\n"
                f"  {doing}, then look at the report. Ctrl-C stops everything.\n",
                flush=True,
            )
            right = True
            if given.visitors:
                from demo.trial import Trial  # a browser is installed only where it is driven

                right = await Trial(shop, meta, given.visitors, faults).run()
                print(
                    f"  The report: {shop.url}/_capi/parity   (token: the-demo-report-token)",
                    flush=True,
                )
            if not given.exit:
                await asyncio.Event().wait()
            return 0 if right else 1
        finally:
            await shop.stop()


if __name__ == "__main__":
    main()
