"""A page with a Purchase while the Graph API is slow, hangs or refuses connections."""

import contextlib
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.benchmarks.measure import Trial
from tests.benchmarks.sink import sink
from tests.support.processes import free_port, running

_PAGES = 60
#: Of views that wait for Meta themselves.
_SLOW_PAGES = 5


class _Shop:
    """A running shop; counts the Purchases that must not be lost."""

    def __init__(self, url: str, store: Path | None = None, page: str = "thanks") -> None:
        self._url = f"{url}/{page}"
        self._store = store
        self._client = httpx.Client(timeout=10)
        self._answered = 0

    def times(self, share: float, pages: int = _PAGES) -> list[float]:
        """Seconds of each page, sorted. Raises where one is not answered."""
        taken = []
        for _ in range(max(1, int(pages * share))):
            start = time.perf_counter()
            self._client.get(self._url).raise_for_status()
            taken.append(time.perf_counter() - start)
            self._answered += 1
        return sorted(taken)

    def check(self) -> None:
        """Raises where a Purchase of an answered page is not in the store."""
        if self._store is not None:
            with contextlib.closing(sqlite3.connect(self._store)) as db:
                states = Counter(server for (server,) in db.execute("SELECT server FROM events"))
            if sum(states.values()) < self._answered:
                raise AssertionError(f"{self._answered} pages, but found {dict(states)}")


def _quantile(shop: _Shop, quantile: float, pages: int = _PAGES) -> Callable[[float], float]:
    def side(share: float) -> float:
        taken = shop.times(share, pages)
        return taken[min(len(taken) - 1, int(len(taken) * quantile))]

    return side


@contextlib.contextmanager
def _up(graph_url: str, view: str = "", page: str = "thanks") -> Iterator[_Shop]:
    port = free_port()
    command = ["uvicorn", "tests.benchmarks.shop:app", "--port", str(port), "--log-level", "error"]
    if view == "django":
        command = ["gunicorn", "tests.benchmarks.django_shop", "--log-level", "error"]
        command += ["--worker-class", "gthread", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "capi.db"
        environment = {
            "GRAPH_URL": graph_url, "VIEW": view, "STORE": f"sqlite:///{store}",
            "LOG": f"{folder}/log.db",
        }  # fmt: skip
        with running(command, port, environment=environment, path="/other") as server:
            shop = _Shop(server.url, None if view else store, page)
            yield shop
            shop.check()


def rows() -> Iterator[Trial]:
    """What the table says about pages and a Graph API that is not well."""
    with contextlib.ExitStack() as servers:

        def up(*given: str) -> _Shop:
            return servers.enter_context(_up(*given))

        graph = servers.enter_context(sink())
        healthy, bare = up(graph), up(graph, "bare")
        what = "page with a Purchase"
        yield Trial(
            f"{what}, p50", "the bare page", None, _quantile(healthy, 0.5), _quantile(bare, 0.5)
        )
        closed = f"http://127.0.0.1:{free_port()}"
        for state, url in (
            ("answers after 300 ms", f"{graph}/slow"),
            ("hangs", f"{graph}/hang"),
            ("refuses connections", closed),
        ):
            ill = up(url)
            for name, quantile, reach in (("p50", 0.5, 1.05), ("p95", 0.95, 1.10)):
                yield Trial(
                    f"{what} while the Graph API {state}, {name}", "while it is healthy", reach,
                    _quantile(ill, quantile), _quantile(healthy, quantile),
                )  # fmt: skip
        slow = "while the Graph API answers after 300 ms, p50"
        for name, view in (("facebook-business", "sdk"), ("django-facebook-capi", "django")):
            calling, other = up(f"{graph}/slow", view), up(f"{graph}/slow", view, "other")
            yield Trial(
                f"{what}: {name} in the view, {slow}", "its page without an event", None,
                _quantile(calling, 0.5, _SLOW_PAGES), _quantile(other, 0.5), rounds=3,
            )  # fmt: skip
