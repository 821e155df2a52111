"""Records: what every log record of ours carries for machines, beside its sentence for people."""

from collections.abc import Mapping


def about(action: str, **fields: str | int | float) -> Mapping[str, object]:
    """The `extra` of a log call: `record.capi` is {"action": ..., **fields}.

    `action` is a verb that names what happened, the same in every version. Fields are codes, ids
    of pixels, names of events and numbers: never a value, a message or anything about a person.
    """
    return {"capi": {"action": action, **fields}}
