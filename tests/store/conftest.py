"""Every backend of the store, for suites that hold all of them to the same promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from capi_middleware.store.opening import open_store
from capi_middleware.store.store import Store
from tests.support.stores import Clock, MakeStore


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What holds for one database alone is not asked of several: see test_shards.py."""
    several = [
        item
        for item in items
        if item.get_closest_marker("one_database") and "[shards" in item.name.replace("-", "[")
    ]
    config.hook.pytest_deselected(items=several)
    items[:] = [item for item in items if item not in several]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgres", "shards"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | list[str]:
    if request.param == "shards":
        urls: list[str] = request.getfixturevalue("postgres_urls")
        return urls
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'capi.db'}"


@pytest.fixture
def make_store(store_url: str | list[str], clock: Clock) -> Iterator[MakeStore]:
    opened: list[Store] = []

    def make(queue_limit: int) -> Store:
        opened.append(open_store(store_url, queue_limit=queue_limit, clock=clock))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(1000)
