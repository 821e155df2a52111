"""What the manual is: short, without a sentence twice, with links that lead somewhere."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tests.support.manual import PAGES, URLS, prose
from tests.support.processes import ROOT

#: Links whose page is not in this tree.
_ELSEWHERE = ("http://127.0.0.1:", URLS["Issues"], URLS["Security"])
_WIDTH = 120


def links(page: str) -> list[str]:
    """Where a page leads, as its text and its list of links say it."""
    text = prose(page)
    inline = re.findall(r"\]\(([^)\s]+)\)", text)
    return inline + re.findall(r"^\[[\w-]+\]: (\S+)$", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def sentences(text: str) -> list[str]:
    """The sentences of a text without its marks of style and links."""
    text = re.sub(r"\[([^\]]+)\](\[[\w-]+\]|\([^)]+\))", r"\1", text)
    text = re.sub(r"^\[[\w-]+\]: .*$|^\|[-|]+$|^#.*$", "", text, flags=re.MULTILINE)
    parts = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) |^\||\|$", text, flags=re.MULTILINE)
    return [
        " ".join(one.split()).strip("*| ")
        for part in parts
        for one in re.split(r"(?<=[.:!?])(?:\*\*)?\s+(?=[A-Z`*])", part)
    ]


def test_the_readme_is_at_most_300_lines() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 300


@pytest.mark.parametrize("page", PAGES)
def test_a_line_that_is_no_row_of_a_table_is_at_most_120_long(page: str) -> None:
    lines = [line for line in PAGES[page].splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > _WIDTH] == []


def test_a_row_of_the_readme_is_no_longer_than_its_lines() -> None:
    assert [one for one in PAGES["README.md"].splitlines() if len(one) > _WIDTH] == []


def test_no_sentence_stands_twice() -> None:
    every = Counter(one for page in PAGES for one in sentences(prose(page)) if one.count(" ") > 4)
    assert [one for one, n in every.items() if n > 1] == []


def test_links_of_the_readme_are_whole_so_that_they_work_where_the_package_is_listed() -> None:
    assert [one for one in links("README.md") if not one.startswith("https://")] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: str) -> None:
    home = URLS["Homepage"]
    raw = home.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
    for link in links(page):
        if link.startswith(_ELSEWHERE):
            continue
        path, _, anchor = re.sub(rf"^({home}/(blob|tree)/main/|{raw})", "", link).partition("#")
        assert "://" not in path, link
        file = ROOT / path if path != link.partition("#")[0] else (ROOT / page).parent / path
        file = file if path else ROOT / page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text("utf-8")), link


def test_every_address_of_the_project_begins_with_its_home() -> None:
    assert [one for one in URLS.values() if not one.startswith(URLS["Homepage"])] == []


def test_every_promise_has_a_test_that_is_named_after_it() -> None:
    told = prose("README.md").partition("\n## Promises\n")[2].partition("\n\n[What each")[0]
    kept = tomllib.loads(Path(__file__).with_name("promises.toml").read_text("utf-8"))["tests"]
    promised = [re.sub(r"^\*\*.*?\*\*", "", one) for one in sentences(told)]
    titles = re.findall(r"- \*\*(.*?)\.\*\*", told)
    assert len(titles) == told.count("\n- ")
    assert [one for one in promised if one and one.rstrip(".") not in titles] == [*kept]
    for promise, tests in kept.items():
        assert tests, promise
        for test in tests:
            file, _, name = test.partition("::")
            assert f"\ndef {name}(" in (ROOT / file).read_text("utf-8"), test
