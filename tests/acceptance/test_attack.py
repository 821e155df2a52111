"""A hostile visitor changes nothing and learns nothing: a short turn of `make attack`."""

import pytest

from tests.attack.driving import Attack, folder
from tests.attack.stores import STORES

SECONDS = 8.0


@pytest.mark.parametrize(("server", "kind"), [("uvicorn", "sqlite"), ("gunicorn", "postgres")])
def test_an_attack_changes_nothing_and_learns_nothing(server: str, kind: str) -> None:
    with folder() as place, STORES[kind](place) as store:
        attack = Attack(server, store, place, seed=20)
        attack.run(SECONDS)
    assert attack.wrong == []
    assert attack.asked > 50
    assert len(attack.planted.values) >= 150
