"""New ideas: every place that one must stand in, and which of them was forgotten."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import get_args

import click

import capi_middleware
from capi_middleware.capture.banners import READY_RULES
from capi_middleware.cli import main
from capi_middleware.events import BEACON_OUTCOMES, BROWSER_CAUSES, SENT, Row, ServerState
from capi_middleware.meta import codes
from capi_middleware.meta.match_keys import MATCH_KEYS
from capi_middleware.meta.user_data import Fields
from capi_middleware.report import flags
from capi_middleware.report.causes import CAUSES, server_cause
from capi_middleware.report.flags.registry import TEXTS
from capi_middleware.report.model import SIDES
from capi_middleware.report.numbers import ROWLESS, WITH_ROW

_PACKAGE = Path(capi_middleware.__file__).parent


def forgotten(manual: Path) -> list[str]:
    """What is missing where in the package that is imported, and in its manual."""
    told = manual.read_text("utf-8")
    return [
        *_flags(), *_causes(), *_match_keys(), *_columns(), *_consent(told),
        *_commands(told), *_codes(),
    ]  # fmt: skip


def _flags() -> list[str]:
    told = {Path(str(module.__file__)).stem: module for module in flags.SUBJECTS}
    files = {path.stem for path in (_PACKAGE / "report/flags").glob("*.py")} - {
        "__init__",
        "registry",
    }
    found = [
        f"report/flags/__init__.py: SUBJECTS does not import {name}.py"
        for name in sorted(files - told.keys())
    ]
    for name, module in told.items():
        found += [
            f"report/flags/{name}.py: {code} has no @check"
            for code, function in inspect.getmembers(module, inspect.isfunction)
            if inspect.getmodule(function) is module
            and not code.startswith("_")
            and code not in flags.CHECKS
        ]
    found += [
        f"report/flags/texts.toml: no check is called {code}"
        for code in sorted(TEXTS.keys() - flags.CHECKS.keys())
    ]
    return found + [
        f"report/flags/texts.toml: {code} is not there"
        for code in sorted(flags.CHECKS.keys() - TEXTS.keys())
    ]


def _causes() -> list[str]:
    states = {server_cause(state) for state in get_args(ServerState) if state != "delivered"}
    states |= {"other_name", *ROWLESS, *WITH_ROW}
    script = "".join(one.read_text("utf-8") for one in _PACKAGE.glob("page/script/*.js"))
    found = []
    for side, stored in zip(SIDES, (set(BROWSER_CAUSES), states), strict=True):
        table = CAUSES[side].keys()
        found += [f"report/causes.toml: {side} has no {word}" for word in sorted(stored - table)]
        found += [f"events.py: no {side} copy has {word}" for word in sorted(table - stored)]
    found += [
        f"page/script: nothing says {word}, see events.BEACON_OUTCOMES"
        for word in sorted(BEACON_OUTCOMES - {SENT})
        if f"'{word}'" not in script
    ]
    return found


def _match_keys() -> list[str]:
    fields = Fields.__annotations__.keys()
    found = [f"meta/user_data.py: Fields has no {key}" for key in MATCH_KEYS.keys() - fields]
    found += [f"meta/match_keys.py: no row is called {key}" for key in fields - MATCH_KEYS.keys()]
    return sorted(found)


def _columns() -> list[str]:
    """The fields of a Row, in the query that keeps one and in the tables of both engines."""
    append = (_PACKAGE / "store/queries.sql").read_text("utf-8").partition("-- name: append\n")[2]
    append = append.partition("\n\n")[0]
    inserted = append.partition("(")[2].partition(")")[0]
    given = append.partition("MANY (")[2].partition(")")[0]
    kept = append.partition("DO UPDATE SET")[2]
    places = {
        "store/queries.sql, append, INSERT INTO": inserted,
        "store/queries.sql, append, WITH new": given,
        "store/queries.sql, append, SELECT": append.partition("SELECT ")[2].partition("FROM")[0],
        "store/queries.sql, append, DO UPDATE": kept,
        **{
            f"store/schema/{engine}.sql, events":
            (_PACKAGE / f"store/schema/{engine}.sql").read_text("utf-8").partition(");")[0]
            for engine in ("sqlite", "postgres")
        },
    }  # fmt: skip
    fixed = {"event_id", "event_name", "pixel_id"}
    return [
        f"{place}: {field} is not there"
        for place, text in places.items()
        for field in Row.__struct_fields__
        if field != "payload"  # in a table of its own, see append_payloads
        if not re.search(rf"\b{field}\b", text) and not (text is kept and field in fixed)
    ]


def _consent(manual: str) -> list[str]:
    return [f"demo/README.md: the rule {name} is not there" for name in READY_RULES
            if f'`"{name}"`' not in manual]  # fmt: skip


def _commands(manual: str) -> list[str]:
    known = {main, *main.commands.values()}
    known |= {
        one for group in main.commands.values() if isinstance(group, click.Group)
        for one in group.commands.values()
    }  # fmt: skip
    found = []
    for path in sorted((_PACKAGE / "cli").glob("[!_]*.py")):
        module = import_module(f"capi_middleware.cli.{path.stem}")
        found += [
            f"cli/__init__.py: main has no {one.name}"
            for one in vars(module).values()
            if isinstance(one, click.Command) and one not in known
        ]
    found += [
        f"demo/README.md: the command {name} is not there" for name in sorted(main.commands)
        if not re.search(rf"^capi-middleware (--config \S+ )?{name}\b", manual, re.MULTILINE)
    ]  # fmt: skip
    return found


def _codes() -> list[str]:
    named = {name: code for name, code in vars(codes).items() if name.isupper()}
    return [
        f"meta/codes.py: MEANINGS has no {name}"
        for name, code in named.items()
        if isinstance(code, str) and code not in codes.MEANINGS
    ]
