"""Hooks around os.fork that do not keep their objects alive."""

import os
from collections.abc import Callable
from weakref import WeakMethod


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call


def _nothing() -> None:
    pass


def at_fork(
    *,
    before: Callable[[], None] | None = None,
    after_in_parent: Callable[[], None] | None = None,
    after_in_child: Callable[[], None],
) -> None:
    """Call these bound methods around each fork, for as long as their object lives.

    Python cannot unregister a hook, so what stays for ever is one small closure per method.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_weak(before) if before else _nothing,
            after_in_parent=_weak(after_in_parent) if after_in_parent else _nothing,
            after_in_child=_weak(after_in_child),
        )
