"""Versions: how old the one that is used is, and when Meta ends it."""

from datetime import UTC, date, datetime, timedelta

import pytest

from capi_middleware.meta.versions import NEWEST, GraphVersion, version_at, versions_at
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.model import Flag
from tests.support.configs import make_config

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
DAY = 86_400


def test_the_newest_version_is_the_default() -> None:
    assert make_config().graph_version == NEWEST == "v27.0"


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("v27.0", GraphVersion("v27.0", 24, "2028-11-03", 706)),
        ("v26.0", GraphVersion("v26.0", 122, "2028-07-28", 608)),
        ("v25.0", GraphVersion("v25.0", 283, "2027-02-23", 87)),
        ("v24.0", GraphVersion("v24.0", 416, "2026-11-10", -18)),
        ("v9.0", GraphVersion("v9.0", None, "2026-11-10", -18)),
        ("v28.0", GraphVersion("v28.0")),
    ],
)
def test_a_version_has_an_age_and_an_end_as_far_as_these_are_known(
    version: str, known: GraphVersion
) -> None:
    assert version_at(version, NOW) == known


def test_a_pinned_version_is_told_beside_the_newest() -> None:
    assert [one.version for one in versions_at("v25.0", NOW)] == ["v25.0", NEWEST]
    assert [one.version for one in versions_at(NEWEST, NOW)] == [NEWEST]


def flagged(version: str, now: float) -> list[Flag]:
    facts = Facts(config=make_config(graph_version=version), upto=now)
    return [one for one in flags_of(facts) if one.code == "graph_version_ends"]


def test_an_end_is_flagged_90_days_before_and_critical_when_it_has_come() -> None:
    end = datetime.combine(date(2027, 2, 23), datetime.min.time(), UTC)
    assert flagged("v25.0", (end - timedelta(days=91)).timestamp()) == []
    (flag,) = flagged("v25.0", (end - timedelta(days=90)).timestamp())
    assert (flag.severity, flag.value) == ("warning", 90)
    assert "2027-02-23" in flag.explanation
    assert NEWEST in flag.fix
    assert [one.severity for one in flagged("v25.0", end.timestamp())] == ["critical"]
    assert flagged(NEWEST, NOW) == flagged("v99.0", NOW) == []
