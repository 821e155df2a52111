"""A hostile visitor changes nothing and learns nothing: a short turn of `make attack`."""

import pytest

from tests.attack.driving import SERVERS, Attack, folder

SECONDS = 8.0


@pytest.mark.parametrize("server", SERVERS)
def test_an_attack_changes_nothing_and_learns_nothing(server: str) -> None:
    with folder() as place:
        attack = Attack(server, place, seed=20)
        attack.run(SECONDS)
    assert attack.wrong == []
    assert attack.asked > 50
    assert len(attack.planted.values) >= 150
