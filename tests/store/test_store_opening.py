"""Store URLs: what they open and how the others are refused."""

import sys
from pathlib import Path

import pytest

from capi_middleware.errors import ConfigError
from capi_middleware.store.opening import check_url, open_store
from tests.support.stores import row, store_rows


def test_memory_opens_a_store_that_is_its_own_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = (open_store("memory:", queue_limit=10) for _ in range(2))
    store_rows(one, row())

    assert (one.depth(), other.depth()) == ({"pending": 1}, {})
    assert list(tmp_path.iterdir()) == []


def test_three_slashes_are_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///capi.db", queue_limit=10)
    store_rows(store, row())
    store.close()

    assert repr(store).endswith("capi.db')")
    assert (tmp_path / "capi.db").exists()


def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/capi.db", queue_limit=10)
    store_rows(store, row())
    store.close()

    assert (tmp_path / "capi.db").exists()


def test_opening_touches_no_file(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/capi.db", queue_limit=10)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_sqlite_without_a_file_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(ConfigError, match='"memory:"'):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite://capi.db", "number of slashes"),
        ("sqlite:capi.db", "number of slashes"),
        ("sqlite:///capi.db?mode=ro", "options"),
        ("sqlite:///data/", "no file name"),
        ("mysql://user:hunter2@host/db", "mysql://"),
        ("memory://", "memory://"),
        ("capi.db", "no URL"),
        ("", "no URL"),
    ],
)
def test_other_urls_are_refused_with_what_was_found_and_expected(url: str, found: str) -> None:
    with pytest.raises(ConfigError, match=r"expected .*sqlite:///capi\.db") as refused:
        check_url(url)

    assert found in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_postgresql_url_opens_nothing_yet_and_hides_its_password(scheme: str) -> None:
    store = open_store(f"{scheme}://user:hunter2@host/db", queue_limit=10)

    assert repr(store) == "Store('postgresql://host/db')"
    store.close()


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capi_middleware.store.postgres", None)
    with pytest.raises(ConfigError, match=r"capi-middleware\[postgres\]") as refused:
        open_store("postgresql://user:hunter2@host/db", queue_limit=10)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["mysql://user:hunter2@host/db", "postgresql+psycopg://u:hunter2@h/db", "u:hunter2@host"]
)
def test_a_password_is_never_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_url(url)

    assert "hunter2" not in str(refused.value)


def test_something_that_is_no_text_is_refused_by_its_type() -> None:
    with pytest.raises(ConfigError, match="found a PosixPath"):
        check_url(Path("capi.db"))  # type: ignore[arg-type]


def test_a_file_that_cannot_be_made_is_refused_at_start_up(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none" / "capi.db", "no directory"), (tmp_path, "a directory")):
        with pytest.raises(ConfigError, match=f"store: found {found}"):
            open_store(f"sqlite:///{path}", queue_limit=10)
