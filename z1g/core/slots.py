"""Sections and slots: the two building blocks of the configuration tree.

A *section* is a frozen group of options. A *slot* is a choice between kinds, each with its own options; `kind:` in the
YAML selects one. The base class of a family is defined in `base.py` of the family's package, and `KINDS` in the
package's `__init__` lists the kinds::

    z1g/losses/base.py       class Loss(Slot): ...
    z1g/losses/latent.py     class LatentLoss(Loss): kind: Literal["latent"] = "latent"
    z1g/losses/__init__.py   KINDS = (LatentLoss, ...)
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema

S = TypeVar("S", bound="Slot")
MAX_SEED = 2**32 - 1
"""Largest random seed. Products with large primes and steps stay within 64 bits."""
MAX_COUNT = 1_000_000_000
"""Bound of numbers such as steps, which have no natural one."""


def first_reason(error: Exception) -> str:
    """One line on why values cannot be used: the first mistake and its key, or the first line of an exception."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if not isinstance(error, ValidationError):
        return str(error).partition("\n")[0]
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


class Section(BaseModel):
    """Frozen options; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def check(self) -> None:
        """Raise UserError if these options cannot work on this machine because a file, folder or package is missing.

        Called for every section of a configuration before the first job starts. It must be cheap.
        """


class Slot(Section):
    """Base of every slot family. Kinds define `kind: Literal["name"] = "name"`."""


@dataclass(frozen=True)
class Runtime:
    """Annotation of a field that cannot change results (workers, intervals): the identity digest excludes it."""


@dataclass(frozen=True)
class FileContent:
    """Annotation of a path: the file's content is part of the identity, its location is not.

    file: the file that the option's value stands for.
    """

    file: Callable[[str], Path] = Path


def kinds(family: type[S]) -> dict[str, type[S]]:
    """All kinds of a slot family by name: `KINDS` of the package whose `base` module defines the family."""
    package = importlib.import_module(family.__module__.rpartition(".")[0])
    listed: tuple[type[S], ...] = package.KINDS
    return dict(sorted((cls.model_fields["kind"].default, cls) for cls in listed))


class OneOf:
    """Annotation `Annotated[Family, OneOf()]`: the value is one kind of the family, selected by `kind`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        classes = tuple(kinds(source).values())
        if len(classes) == 1:
            return handler.generate_schema(classes[0])
        return handler.generate_schema(Annotated[Union[classes], Field(discriminator="kind")])  # noqa: UP007
