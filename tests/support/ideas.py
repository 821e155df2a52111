"""New ideas: every place that a flag or a cause must stand in, and which of them was forgotten."""

import inspect
import re
from pathlib import Path
from typing import get_args

import capi_middleware
from capi_middleware.events import BEACON_OUTCOMES, BROWSER_CAUSES, SENT, ServerState
from capi_middleware.report import flags
from capi_middleware.report.causes import CAUSES, server_cause
from capi_middleware.report.model import SIDES

_PACKAGE = Path(capi_middleware.__file__).parent


def forgotten(readme: Path) -> list[str]:
    """What is missing where in the package that is imported, and in its README."""
    told = readme.read_text("utf-8")
    return [*_flags(told), *_causes(told)]


def _flags(readme: str) -> list[str]:
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
    named = _named(readme, "flag")
    found += [
        f"README.md, Flags: {code} is not there" for code in sorted(flags.CHECKS.keys() - named)
    ]
    found += [
        f"README.md, Flags: no check is called {code}"
        for code in sorted(named - flags.CHECKS.keys())
    ]
    return found


def _causes(readme: str) -> list[str]:
    states = {server_cause(state) for state in get_args(ServerState) if state != "delivered"}
    script = (_PACKAGE / "page/s.js").read_text("utf-8")
    found = []
    for side, stored in zip(SIDES, (set(BROWSER_CAUSES), states), strict=True):
        table, named = CAUSES[side].keys(), _named(readme, f"the {side} copy is missing")
        found += [f"report/causes.py: {side} has no {word}" for word in sorted(stored - table)]
        found += [f"events.py: no {side} copy has {word}" for word in sorted(table - stored)]
        found += [
            f"README.md: the {side} cause {word} is not there" for word in sorted(table - named)
        ]
        found += [f"README.md: there is no {side} cause {word}" for word in sorted(named - table)]
    found += [
        f"page/s.js: nothing says {word}, see events.BEACON_OUTCOMES"
        for word in sorted(BEACON_OUTCOMES - {SENT})
        if f"'{word}'" not in script
    ]
    return found


def _named(readme: str, heading: str) -> set[str]:
    """What the first column of the README's table names that begins with this heading."""
    rows = readme.partition(f"| {heading} | ")[2].partition("\n\n")[0]
    return {
        word for row in rows.splitlines()[2:] for word in re.findall(r"`(\w+)`", row.split("|")[1])
    }
