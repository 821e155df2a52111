"""lazily: an attribute that is made when it is first read."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from msgspec import Struct

from capi_middleware.private import Private

T = TypeVar("T")


class Part(Private, Struct, eq=False, dict=True):
    """A part of one request: made at C speed, may have lazily attributes."""


class lazily(Generic[T]):  # noqa: N801 - reads as a decorator, like property
    """functools.cached_property as Python 3.12 has it: before, each first read takes a lock."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> "lazily[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "T | lazily[T]":
        if instance is None:
            return self
        # The instance's own attribute goes before this descriptor from now on.
        value = instance.__dict__[self._name] = self._make(instance)
        return value
