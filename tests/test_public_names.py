"""What an editor shows of the public names, and that all places name one version."""

import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

import capi_middleware
from capi_middleware import CAPI, Event, UserData, Visitor, current_visitor, testing, track
from capi_middleware import wsgi as wsgi_door
from capi_middleware.django import get_capi
from capi_middleware.flask import init_app
from tests.support.processes import ROOT

PUBLIC: dict[str, Any] = {
    **{name: getattr(capi_middleware, name) for name in capi_middleware.__all__},
    **{f"testing.{name}": getattr(testing, name) for name in testing.__all__},
    "wsgi.CAPIMiddleware": wsgi_door.CAPIMiddleware,
    "django.get_capi": get_capi,
    "flask.init_app": init_app,
}
RAISING = {
    "track": track,
    "current_visitor": current_visitor,
    "Config": capi_middleware.Config,
    "Config.load": capi_middleware.Config.load,
    "Config.from_mapping": capi_middleware.Config.from_mapping,
    "EventRoute": capi_middleware.EventRoute,
    "CAPI": CAPI,
    "CAPI.track": CAPI.track,
    "Visitor.dumps": Visitor.dumps,
    "Visitor.loads": Visitor.loads,
    "django.get_capi": get_capi,
    "flask.init_app": init_app,
    "FakeMeta.serve": testing.FakeMeta.serve,
    "Captured.assert_tracked": testing.Captured.assert_tracked,
}


def documented() -> dict[str, Any]:
    """The public names with the public methods of classes."""
    found = dict(PUBLIC)
    for name, thing in PUBLIC.items():
        if thing is testing.MemoryStore:  # its methods are those of Store
            continue
        for method, member in inspect.getmembers(thing) if inspect.isclass(thing) else []:
            ours = str(getattr(member, "__module__", "")).startswith("capi_middleware")
            if not method.startswith("_") and inspect.isroutine(member) and ours:
                found[f"{name}.{method}"] = member
    return found


def parameters(thing: Any) -> list[str]:
    """The parameters that a caller may name."""
    if thing is UserData:
        return [*capi_middleware.meta.match_keys.MATCH_KEYS]
    named = [inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY]
    try:
        given = inspect.signature(thing).parameters
    except (TypeError, ValueError):  # an attribute, or written in C
        return []
    return [
        one.name for one in given.values() if one.kind in named and one.name not in ("self", "_")
    ]


@pytest.mark.parametrize("name", documented())
def test_a_docstring_explains_every_parameter(name: str) -> None:
    thing = documented()[name]
    text = inspect.getdoc(thing) or ""
    assert text.endswith((".", "`", "…")) or "\n" in text
    if name in ("Visitor", "Event"):  # made by the product, not by its users
        return
    missing = [one for one in parameters(thing) if not re.search(rf"\b{one}\b", text)]
    assert missing == []


@pytest.mark.parametrize("name", RAISING)
def test_a_docstring_names_the_errors(name: str) -> None:
    assert re.search(r"[Rr]aises \w+", inspect.getdoc(RAISING[name]) or "")


def test_an_event_says_in_which_unit_its_time_is() -> None:
    assert "Unix time in seconds" in (Event.__doc__ or "")


def test_the_changelog_and_the_metadata_name_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    top = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert top is not None
    assert top[1] == capi_middleware.__version__ == version("capi-middleware")


def test_a_name_is_imported_when_it_is_first_used() -> None:
    code = (
        "import sys, capi_middleware\n"
        "assert 'capi_middleware.capi' not in sys.modules\n"
        "import capi_middleware.wsgi\n"
        "assert not {'asyncio', 'httpx', 'jinja2', 'psycopg', 'anyio'} & set(sys.modules)\n"
        "for name in capi_middleware.__all__:\n"
        "    assert getattr(capi_middleware, name).__module__.startswith('capi_middleware.')\n"
        "assert set(capi_middleware.__all__) <= set(dir(capi_middleware))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = capi_middleware.Nothing
