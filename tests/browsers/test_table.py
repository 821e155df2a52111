"""The table is whole, and whoever counts what is wrong in it sees it."""

import pytest

from tests.browsers.drivers import NAMES
from tests.browsers.play import Seen, judge
from tests.browsers.scene import Scene
from tests.browsers.table import GROUPS, TABLE


def test_the_table_has_180_scenes_of_different_names() -> None:
    assert 180 <= len(TABLE) == sum(len(list(group())) for group in GROUPS)


def test_what_a_browser_cannot_play_has_a_reason() -> None:
    reasons = [(name, why) for scene in TABLE.values() for name, why in scene.cannot.items()]
    assert all(name in NAMES and why for name, why in reasons)


@pytest.mark.parametrize(
    ("pairs", "states", "wrong"),
    [
        ([(1, 1)], ["sent"], {}),
        ([(1, 0)], ["sent"], {"wrong sent": 1, "lost": 1}),
        ([(1, 1)], ["not_run"], {"missed": 1}),
        ([(1, 0)], ["not_run"], {"wrong cause": 1, "lost": 1}),
        ([(0, 1)], ["sent"], {"lost": 1}),
        ([(1, 2)], ["sent"], {"twice": 1}),
        ([(1, 1), (0, 1)], ["sent", "sent"], {"twice": 1}),
        ([], [], {"wrong cause": 1, "lost": 2}),
    ],
)
def test_each_difference_has_its_figure(
    pairs: list[tuple[int, int]], states: list[str], wrong: dict[str, int]
) -> None:
    scene = Scene(name="x", expects={"Lead": ["1+1 sent"]})
    assert judge(scene, Seen({"Lead": pairs}, {"Lead": states})) == wrong


def test_a_cause_is_not_another() -> None:
    scene = Scene(name="x", expects={"Lead": ["1+0 csp"]})
    assert judge(scene, Seen({"Lead": [(1, 0)]}, {"Lead": ["csp"]})) == {}
    assert judge(scene, Seen({"Lead": [(1, 0)]}, {"Lead": ["unknown"]})) == {"wrong cause": 1}
