"""The table: every kind of page, host, policy, router and visit, and what must come of each."""

from tests.browsers import hosts, pages, visits
from tests.browsers.scene import Scene

GROUPS = (
    hosts.hosts, hosts.policies, hosts.consent,
    pages.oddities, pages.managers, pages.routers, pages.workers,
    visits.leaving, visits.clicks,
)  # fmt: skip
TABLE: dict[str, Scene] = {scene.name: scene for group in GROUPS for scene in group()}
