"""Every import is a declared dependency, and no declared version has a published advisory."""

import ast
import re
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import capi_middleware

PACKAGE = Path(capi_middleware.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
#: What a host that uses the module has: a framework, or a tool that asks for what is there.
OF_THE_HOST = {
    "django.py": {"django", "asgiref"}, "flask.py": {"flask"}, "cli/source.py": {"django"},
    "delivery/telemetry.py": {"opentelemetry-api"},
}  # fmt: skip
#: Which extra a module is of, beside what all have.
EXTRAS = {
    "cli/mcp.py": "mcp", "cli/": "cli", "testing/": "testing", "pytest_plugin.py": "testing",
    "store/postgres.py": "postgres", "store/link.py": "postgres",
    "page/gzip.py": "speed",
}  # fmt: skip
#: The first version without the published advisories of each dependency that had one.
ADVISORIES = {
    "starlette": "1.3.1",  # CVE-2025-62727, CVE-2026-48710, PYSEC-2026-248, PYSEC-2026-249
    "jinja2": "3.1.6",  # CVE-2024-22195, -34064, -56201, -56326, CVE-2025-27516
    "idna": "3.15",  # CVE-2024-3651, CVE-2026-45409
    "click": "8.3.3",  # CVE-2026-7246
    "httpx": "0.23.0",  # CVE-2021-41945
    "uvicorn": "0.11.7",  # CVE-2020-7694, -7695
    "pytest": "9.0.3",  # CVE-2025-71176
}


def named(requirements: list[str]) -> dict[str, Requirement]:
    return {(one := Requirement(text)).name.lower(): one for text in requirements}


def imported(file: Path) -> set[str]:
    """The top-level modules that a file imports, wherever it does, or reads data of."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("files", "find_spec"):
            found |= {
                str(one.value).partition(".")[0]
                for one in node.args[:1]
                if isinstance(one, ast.Constant)
            }
    return {one for one in found if one not in sys.stdlib_module_names} - {"capi_middleware"}


def undeclared(file: Path, of: Mapping[str, list[str]]) -> set[str]:
    """What a file imports that nobody installs for it."""
    place = file.relative_to(PACKAGE).as_posix()
    allowed = OF_THE_HOST.get(place, set()) | named(PROJECT["dependencies"]).keys()
    for start, extra in EXTRAS.items():
        if place.startswith(start):
            allowed |= named(PROJECT["optional-dependencies"][extra]).keys()
    return {one for one in imported(file) if allowed.isdisjoint(map(str.lower, of.get(one, [one])))}


def test_each_import_is_a_declared_dependency() -> None:
    of = packages_distributions()
    found = {str(file): undeclared(file, of) for file in PACKAGE.rglob("*.py")}
    assert len(found) > 100
    assert {file: names for file, names in found.items() if names} == {}


def test_no_lower_bound_has_a_published_advisory() -> None:
    declared = named(PROJECT["dependencies"])
    for requirements in PROJECT["optional-dependencies"].values():
        declared |= named(requirements)
    for name, first in ADVISORIES.items():
        lowest = re.search(r">=([\d.]+)", str(declared[name].specifier))
        assert lowest is not None, name
        assert Version(lowest[1]) >= Version(first), name
