"""What every test is held to: no error of ours is swallowed unseen."""

from collections.abc import Iterator

import pytest

from capi_middleware.shield import Shield


@pytest.fixture(autouse=True)
def swallowed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[BaseException]]:
    """The errors that the shield caught; a test that expects some empties the list."""
    errors: list[BaseException] = []
    honest = Shield.caught

    def caught(self: Shield, error: BaseException, where: str) -> None:
        errors.append(error)
        honest(self, error, where)

    monkeypatch.setattr(Shield, "caught", caught)
    yield errors
    if errors:
        raise AssertionError("the shield swallowed an error of ours") from errors[0]
