"""Matching: the right routes, in order, without looking at all of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_middleware import EventRoute
from capi_middleware.config.routes import PathTemplate, RouteIndex

PATHS = st.lists(st.sampled_from(["", "a", "b", "_capi", "ü", "7"]), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    st.lists(st.sampled_from(["GET /a", "POST /a/{x}", "* /b/{x:path}", "GET /{x}/b", "GET /"])),
    st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
    PATHS,
)
def test_the_first_look_never_turns_away_what_a_route_or_an_endpoint_wants(
    matches: list[str], method: str, path: str
) -> None:
    index = RouteIndex([EventRoute(one, "Lead") for one in matches], reserved="/_capi")
    wanted = index.match(method, path) or path.startswith("/_capi/") or method == "HEAD"
    assert index.may_want(method, path) or not wanted


def test_the_first_look_turns_away_what_no_route_begins_with() -> None:
    routes = [EventRoute("GET /a/{x}", "Lead"), EventRoute("POST /b", "Lead")]
    index = RouteIndex(routes, reserved="/_capi")
    assert not index.may_want("GET", "/b")
    assert not index.may_want("GET", "/c/a")
    assert not index.may_want("DELETE", "/a/x")


def names(index: RouteIndex, method: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    return [(one.route.event_name, one.parameters) for one in index.match(method, path)]


@pytest.mark.parametrize(
    ("match", "method", "path", "parameters"),
    [
        ("GET /", "GET", "/", {}),
        ("GET /a/b", "GET", "/a/b", {}),
        ("GET /a/{x}", "GET", "/a/ü", {"x": "ü"}),
        ("GET /a/{x:int}", "GET", "/a/7", {"x": 7}),
        ("GET /a/{x:float}", "GET", "/a/7.5", {"x": 7.5}),
        ("GET /a/{x:path}", "GET", "/a/b/c", {"x": "b/c"}),
        ("GET /{x:path}/end", "GET", "/a/b/end", {"x": "a/b"}),
        ("GET /a/{x}.html", "GET", "/a/b.html", {"x": "b"}),
        ("GET /a/{x}-{y:int}/z", "GET", "/a/b-2/z", {"x": "b", "y": 2}),
        ("* /a", "PATCH", "/a", {}),
    ],
)
def test_a_path_that_fits_gives_its_parameters(
    match: str, method: str, path: str, parameters: dict[str, Any]
) -> None:
    assert names(RouteIndex([EventRoute(match, "Lead")]), method, path) == [("Lead", parameters)]


@pytest.mark.parametrize(
    ("match", "method", "path"),
    [
        ("GET /a", "POST", "/a"),
        ("GET /a", "HEAD", "/a"),
        ("GET /a", "GET", "/a/"),
        ("GET /a", "GET", "/A"),
        ("GET /a/{x}", "GET", "/a/"),
        ("GET /a/{x}", "GET", "/a/b/c"),
        ("GET /a/{x:int}", "GET", "/a/b"),
        ("GET /a/{x}.html", "GET", "/a/b.htm"),
        ("GET /a/{x}", "GET", "/b/a"),
    ],
)
def test_a_path_that_does_not_fit_gives_nothing(match: str, method: str, path: str) -> None:
    assert names(RouteIndex([EventRoute(match, "Lead")]), method, path) == []


def test_all_routes_that_fit_come_in_the_order_of_the_configuration() -> None:
    index = RouteIndex(
        [
            EventRoute("GET /{rest:path}", "Any"),
            EventRoute("GET /a/{x}", "Some"),
            EventRoute("GET /a/b", "This"),
            EventRoute("GET /a/c", "Other"),
        ]
    )
    assert [name for name, _ in names(index, "GET", "/a/b")] == ["Any", "Some", "This"]


SEGMENT = st.sampled_from(["a", "b", "ab", "{x}", "{x:int}", "a{x}", "{x:path}", "7"])


@given(
    st.lists(st.lists(SEGMENT, min_size=1, max_size=3), max_size=8),
    st.lists(st.sampled_from(["a", "b", "ab", "7", "abc", ""]), min_size=1, max_size=4),
)
def test_the_index_finds_exactly_what_trying_every_route_finds(
    templates: list[list[str]], segments: list[str]
) -> None:
    routes = [
        EventRoute("GET /" + "/".join(f.replace("{x", f"{{x{n}") for n, f in enumerate(parts)), "E")
        for parts in templates
    ]
    path = "/" + "/".join(segments)
    found = [one.route for one in RouteIndex(routes).match("GET", path)]
    assert found == [route for route in routes if route.path.match(path) is not None]


def test_the_work_does_not_grow_with_the_number_of_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = [EventRoute(f"GET /shop/{{x}}/r{n}", f"E{n}") for n in range(500)]
    index = RouteIndex(routes)
    tried: list[str] = []
    honest = PathTemplate.match

    def match(self: PathTemplate, path: str) -> dict[str, Any] | None:
        tried.append(self.text)
        return honest(self, path)

    monkeypatch.setattr(PathTemplate, "match", match)
    assert [name for name, _ in names(index, "GET", "/shop/7/r499")] == ["E499"]
    assert tried == ["/shop/{x}/r499"]
