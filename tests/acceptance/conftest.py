"""A fake Meta in its own server, and the shop in real server processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from capi_middleware.testing import FakeMeta
from tests.support.configs import SECRET
from tests.support.processes import Server, free_port, running


@pytest.fixture
def fake() -> FakeMeta:
    return FakeMeta()


@pytest.fixture
def meta(fake: FakeMeta) -> Iterator[str]:
    with fake.serve() as url:
        yield url


class Shop:
    """The shop under uvicorn or gunicorn, restartable on the same port and store."""

    def __init__(self, kind: str, meta: str, store: Path) -> None:
        self.kind, self.port = kind, free_port()
        self.environment = {
            "CAPI_META": meta,
            "CAPI_STORE": f"sqlite:///{store}",
            "CAPI_SECRET_KEY": SECRET,
        }

    def run(self) -> Any:
        port = str(self.port)
        if self.kind == "asgi":
            arguments = ["uvicorn", "--factory", "demo.shop:create", "--host", "127.0.0.1",
                         "--port", port, "--log-level", "warning"]  # fmt: skip
        else:
            arguments = ["gunicorn", "demo.flask_shop:create()", "--bind", f"127.0.0.1:{port}",
                         "--threads", "4", "--log-level", "warning"]  # fmt: skip
        # The path of the report: asking for it leaves no event behind.
        return running(arguments, self.port, environment=self.environment, path="/_capi/s.js")


def report(shop: Server) -> dict[str, dict[str, Any]]:
    """The report's events by name."""
    answer = httpx.get(
        f"{shop.url}/_capi/parity.json",
        headers={"authorization": "Bearer the-demo-report-token"},
        timeout=10,
    )
    assert answer.status_code == 200
    return {event["event_name"]: event for event in answer.json()["events"]}
