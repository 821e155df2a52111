"""Sentences: what is said of Meta's numbers, and of what Meta did not tell; see sentences.toml."""

from functools import cache
from importlib.resources import files

import msgspec
from msgspec.structs import replace

from capi_middleware.insights.model import Measure, Problem, Verdict


class Case(msgspec.Struct, frozen=True):
    """What is said of a measure in one case; the fields are those of a Comparison."""

    explanation: str
    verdict: Verdict = "differs"
    fix: str = ""


class Sentences(msgspec.Struct, frozen=True):
    """All that sentences.toml holds."""

    measures: dict[Measure, dict[str, Case]]
    problems: dict[str, Problem]


@cache
def sentences() -> Sentences:
    """The sentences, read once."""
    file = files("capi_middleware.insights").joinpath("sentences.toml")
    return msgspec.toml.decode(file.read_bytes(), type=Sentences)


def problem(name: str, **words: str) -> Problem:
    """The problem that sentences.toml calls `name`, with the `words` that it wants."""
    found = sentences().problems[name]
    return replace(
        found, explanation=found.explanation.format(**words), fix=found.fix.format(**words)
    )
