"""What every configuration shares: options, their checks, and the flags made from them.

Imports no TensorFlow, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from simsiam_tf.runtime.errors import UserError, nearest

LOOKS = ("preview", "dry_run")  # what only looks
BIG = 2**31 - 1
FOLDER = "folder:"  # before the path, in what names images


def option(default: Any, text: str, group: str = "", choices=(), free: bool | str = False) -> Any:
    """A field with its help text.

    choices: the values it may take, or a table whose keys they are.
    free: may differ when a run is continued; a text: may become that.
    """
    choices = choices if isinstance(choices, dict) else tuple(choices)
    meta = {"help": text, "group": group, "choices": choices, "free": free}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Config:
    """What a command depends on; a subclass adds `option`s.

    RANGES: (field, lowest, highest). NO_EFFECT: (fields, the field or property whose value makes them
    moot, which values those are, what to call that). DEPENDS: property → the fields it comes from.
    """

    RANGES: ClassVar[Sequence] = ()
    NO_EFFECT: ClassVar[Sequence] = ()
    DEPENDS: ClassVar[Mapping[str, set[str]]] = {}

    def validate(self) -> Self:
        """Returns itself, or raises UserError for the first value that cannot be."""
        check_choices(self)
        for name, low, high in self.RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name}={value}: must be from {low} to {high}.")
        for name, _, reason in moot(self):
            raise UserError(f"{name}={getattr(self, name)} has no effect with {reason}. Leave it out.")
        return self


def check_address(name: str, value: str | None) -> None:
    """Raises UserError for what is given and no HOST:PORT."""
    if value is not None and not re.fullmatch(r"([\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}", value):
        raise UserError(f"{name}={value}: must be HOST:PORT, as in {name}=localhost:5050.")


def default(cls: type, name: str) -> Any:
    """The default of a field."""
    return next(f.default for f in dataclasses.fields(cls) if f.name == name)


def moot(config: Config) -> list[tuple[str, str, str]]:
    """(field, the field that makes it moot, what to call that), of all that change nothing."""
    return [
        (name, cause, reason)
        for names, cause, holds, reason in config.NO_EFFECT
        for name in names
        if holds(getattr(config, cause)) and getattr(config, name) != default(type(config), name)
    ]


def overridden(config: Any, typed: set[str]) -> Any:
    """The configuration without what a flagfile set and a typed flag has made moot.

    With predictor=none typed, the flagfile's `predictor_lr` falls away instead of standing in
    the way.
    """
    causes = {cause: config.DEPENDS.get(cause, {cause}) for _, cause, _ in moot(config)}
    idle = [name for name, cause, _ in moot(config) if causes[cause] & typed and name not in typed]
    return dataclasses.replace(config, **{name: default(type(config), name) for name in idle})


def check_choices(config: Any) -> None:
    """Raises UserError for the first field with a value that is none of its choices."""
    for field in dataclasses.fields(config):
        choices, value = field.metadata["choices"], getattr(config, field.name)
        if choices and value not in choices:
            raise UserError(f"{field.name}={value}: no such value.{nearest(str(value), choices)}")


def kinds(cls: type) -> dict[str, type]:
    """Field → str, int, float or bool, without the None."""
    hints = typing.get_type_hints(cls)
    kinds_of = {name: [a for a in typing.get_args(h) if a is not type(None)] for name, h in hints.items()}
    return {f.name: next(iter(kinds_of[f.name]), hints[f.name]) for f in dataclasses.fields(cls)}


def to_flags(config: Any) -> str:
    """The text of a flagfile that makes this configuration again, and trains with it."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None and field.name not in LOOKS:
            value = str(value).lower() if isinstance(value, bool) else value
            lines.append(f"--{field.name}={value}")
    return "\n".join(lines) + "\n"


def differences(a: dict, b: dict, cls: type) -> list[str]:
    """Names of the fields that bind a run and differ between two configurations, `b` the later one.

    Where a folder or a file of weights lies binds nothing: what is in it does, by its digest among the
    run's facts.
    """
    idle = {n for names, cause, holds, _ in cls.NO_EFFECT if cause in b and holds(b[cause]) for n in names}
    fields = [f for f in dataclasses.fields(cls) if f.metadata["free"] is not True and f.name not in idle]

    def alike(field: dataclasses.Field) -> bool:
        old, new = a.get(field.name, default(cls, field.name)), b.get(field.name)
        placed = all(isinstance(v, str) and (field.name == "weights" or is_folder(v)) for v in (old, new))
        free = field.metadata["free"]
        return placed or old == new or (isinstance(free, str) and new == free)

    return [field.name for field in fields if not alike(field)]


def is_folder(value: Any) -> bool:
    """Whether a field's value names a folder of images."""
    return isinstance(value, str) and value.startswith(FOLDER) and value != FOLDER
