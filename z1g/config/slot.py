"""Sections and slots: the two building blocks of the configuration tree.

A *section* is a frozen group of options. A *slot* is a choice between kinds, each with its own options: the base class
of a family lives in a package, every module of that package may define kinds, and `kind:` in the YAML picks one. A new
backend, loss or metric is therefore one new file in the family's package.
"""

import importlib
import pkgutil
import sys
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

S = TypeVar("S", bound="Slot")


class Section(BaseModel):
    """Frozen options; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Slot(Section):
    """Base of every slot family. Kinds define `kind: Literal["name"] = "name"`."""


@dataclass(frozen=True)
class Runtime:
    """Annotation of a field that cannot change results (workers, intervals): it stays outside the identity digest."""


@dataclass(frozen=True)
class FileContent:
    """Annotation of a path: what the file holds is part of the identity, not where it lies."""


def kinds(family: type[S]) -> dict[str, type[S]]:
    """All kinds of a slot family by name, found by importing every public module of the family's package.

    Modules that start with an underscore hold heavy implementation and are left alone.
    """
    package = sys.modules[family.__module__]
    for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    found: dict[str, type[S]] = {}
    pending = list(family.__subclasses__())
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        # Elsewhere (a test, a notebook) a subclass is no choice of the configuration.
        kind = cls.model_fields["kind"].default if "kind" in cls.model_fields else None
        if isinstance(kind, str) and cls.__module__.startswith(package.__name__ + "."):
            found[kind] = cls
    return dict(sorted(found.items()))


class OneOf:
    """Annotation `Annotated[Family, OneOf()]`: the value is one kind of the family, told apart by `kind`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        classes = tuple(kinds(source).values())
        if len(classes) == 1:
            return handler.generate_schema(classes[0])
        return handler.generate_schema(Annotated[Union[classes], Field(discriminator="kind")])  # noqa: UP007
