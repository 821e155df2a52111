"""The package stays as small, and its trips as short, as they are."""

from tests.shape import LIMITS, figures


def test_no_figure_of_the_house_grows_beyond_its_limit() -> None:
    found = figures()
    over = {
        name: f"found {found[name]:,}, expected at most {limit:,}"
        for name, (limit, _) in LIMITS.items()
        if found[name] > limit
    }
    assert not over, f"{over}; `make shape` shows all of them"
