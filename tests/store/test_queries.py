"""The named queries: that each is there, and takes what it is given."""

import re
from pathlib import Path

import pytest

import capi_middleware.store
from capi_middleware.events import Row, Sighting
from capi_middleware.store import postgres, sqlite
from capi_middleware.store.rollups import Key
from capi_middleware.store.store import named

ROOM = Path(capi_middleware.store.__file__).parent
CALL = re.compile(r"""(?:\.|self\._?)(?:read|run|many|read_many)\(\s*"(\w+)"|QUERIES\["(\w+)"\]""")


def called(*modules: str) -> set[str]:
    """The names that modules of the store call queries by."""
    return {
        first or second
        for module in modules
        for first, second in CALL.findall((ROOM / f"{module}.py").read_text())
    }


@pytest.mark.parametrize(
    ("engine", "queries"), [("sqlite", sqlite.QUERIES), ("postgres", postgres.QUERIES)]
)
def test_every_query_that_is_called_is_there_and_every_one_is_called(
    engine: str, queries: object
) -> None:
    # By a name made of the kind or the state.
    made = {"append", "sight"}
    made |= {f"settle_{state}" for state in ("delivered", "dead", "stopped", "pending", "refused")}
    made |= {"changes", "fresh"} if engine == "sqlite" else {"begin", "begin_reading"}

    modules = ("store", "rollups", engine, *(["salvage"] if engine == "sqlite" else []))
    assert called(*modules) | made == set(queries)  # type: ignore[call-overload] # a mapping


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("append", tuple(one for one in Row.__struct_fields__ if one != "payload")),
        ("sight", Sighting.__struct_fields__),
        ("add_keys", Key._fields),
        ("find_keys", Key._fields),
    ],
)
def test_a_query_takes_the_fields_of_its_rows_in_their_order(
    query: str, fields: tuple[str, ...]
) -> None:
    columns = [name for name, _ in named("queries.sql")[query].columns]

    assert columns == list(fields)


def test_no_value_has_a_number_which_python_3_14_refuses_with_a_sequence() -> None:
    """Of sqlite3: a DeprecationWarning since Python 3.12, an error in 3.14."""
    texts = [text for one in sqlite.QUERIES.values() for text in one.texts.values()]
    assert [text for text in texts if re.search(r"\?\d", text)] == []
