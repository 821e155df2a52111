"""What costs nothing where nothing happens: many web processes with many pixels."""

import time

from capi_middleware import CAPI, Pixel
from tests.support.configs import TOKEN, make_config
from tests.support.postgres_pair import lone
from tests.support.processes import until


def test_50_idle_processes_of_20_pixels_ask_less_than_one_query_a_second_in_all() -> None:
    pixels = [Pixel(str(10_000_000 + number), access_token=TOKEN) for number in range(20)]
    with lone() as server:
        server.stop()
        server.start("max_connections=200", "log_statement=all")
        config = make_config(store=server.url, pixels=pixels, delivery=True)
        processes = [
            CAPI(config) for _ in range(50)
        ]  # each with connections and threads of its own
        asked = "execute <unnamed>: WITH clock"
        for capi in processes:
            capi.start()
        until("a look of each", lambda: server.log().count(asked) >= 50, 60)
        time.sleep(2.0)  # what each does once
        before, start = len(server.log().splitlines()), time.monotonic()
        time.sleep(20.0)
        lines, seconds = server.log().splitlines()[before:], time.monotonic() - start
        for capi in processes:
            capi.close(1)

    queries = [line for line in lines if " LOG:  execute" in line or " LOG:  statement" in line]
    assert len(queries) <= seconds, queries
    assert any(asked in line for line in queries)
