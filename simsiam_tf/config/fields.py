"""The base of every configuration: options with their checks. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from simsiam_tf.config.places import is_file
from simsiam_tf.runtime.errors import UserError, nearest

LOOKS = ("preview", "dry_run")  # options that only show what a run would do
BIG = 2**31 - 1


def option(
    default: Any, text: str, group: str = "", choices=(), resumable: bool | str = False, limits=None,
    form: str = "", bare: str | None = None,
) -> Any:  # fmt: skip
    """Makes a field of a configuration.

    Args:
        default: value of the option where it is not given.
        text: help, in which another option is named in backquotes, as in `weights`.
        group: heading in the help; when empty, that of the previous option.
        choices: the values that the option may take, or a table with these keys; any value when empty.
        resumable: whether a run may be resumed with another value; a string: only with that value.
        limits: (lowest, highest) allowed number; None: any.
        form: how a value that is none of the choices is written, as in py:MODULE:CLASS.
        bare: value of a flag that is given without one, as in --ray; None: it must have one.
    """
    meta = {
        "help": text, "group": group, "choices": choices, "resumable": resumable, "limits": limits,
        "form": form, "bare": bare,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Inapplicable:
    """Options that change nothing while another one has a certain value.

    options: their names. decider: the other option, or a property of the configuration.
    condition: value of the decider → whether it makes them inapplicable. description: such a value in words,
    as in "predictor_lr=constant has no effect with DESCRIPTION".
    """

    options: tuple[str, ...]
    decider: str
    condition: Callable[[Any], Any]
    description: str


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of a command; a subclass adds `option`s."""

    INAPPLICABLE: ClassVar[Sequence[Inapplicable]] = ()
    DECIDERS: ClassVar[Mapping[str, set[str]]] = {}  # property that a rule names → options that decide it

    def validate(self) -> Self:
        """Returns the configuration. Raises UserError for a value that is invalid or has no effect."""
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            kind, colon, _ = field.metadata["form"].partition(":")
            other = bool(colon) and str(value).startswith(f"{kind}:")
            if choices and value not in choices and not other:
                raise UserError(f"{field.name}={value}: no such value.{nearest(str(value), choices)}")
            limits = field.metadata["limits"]
            if limits and value is not None and not limits[0] <= value <= limits[1]:
                raise UserError(f"{field.name}={value}: must be from {limits[0]} to {limits[1]}.")
        for name, rule in inapplicable(self):
            raise UserError(
                f"{name}={getattr(self, name)} has no effect with {rule.description}. Leave it out."
            )
        return self

    def undecided(self) -> set[str]:
        """Options that are still to be chosen, so that none is inapplicable because of them."""
        return set()

    def as_values(self) -> Self:
        """The same configuration without `minutes`, once it has chosen `epochs`."""
        return self


def check_address(name: str, value: str | None) -> None:
    """Raises UserError for an option whose value is neither None nor HOST:PORT."""
    if value is not None and not re.fullmatch(r"([\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}", value):
        raise UserError(f"{name}={value}: must be HOST:PORT, as in {name}=localhost:5050.")


def default(cls: type, name: str) -> Any:
    """The default of an option."""
    return next(f.default for f in dataclasses.fields(cls) if f.name == name)


def inapplicable(config: Config) -> list[tuple[str, Inapplicable]]:
    """(option, rule) for every option that has no effect although its value is not the default."""
    undecided = config.undecided()
    return [
        (name, rule)
        for rule in config.INAPPLICABLE
        if not undecided & config.DECIDERS.get(rule.decider, {rule.decider})
        if rule.condition(getattr(config, rule.decider))
        for name in rule.options
        if getattr(config, name) != default(type(config), name)
    ]


def drop_inapplicable(config: Any, typed: set[str]) -> Any:
    """Resets options of a flagfile to their defaults where a typed flag leaves them without effect.

    With predictor=none typed, the flagfile's `predictor_lr` is dropped instead of being an error.
    typed: names of the options that the user typed, which stay as they are.
    """
    drop = {
        name: default(type(config), name)
        for name, rule in inapplicable(config)
        if config.DECIDERS.get(rule.decider, {rule.decider}) & typed and name not in typed
    }
    return dataclasses.replace(config, **drop)


def field_types(cls: type) -> dict[str, type]:
    """Option → str, int, float or bool; the type without None where it is optional."""
    hints = typing.get_type_hints(cls)
    return {f.name: (*typing.get_args(hints[f.name]), hints[f.name])[0] for f in dataclasses.fields(cls)}


def to_flags(config: Any, changed: bool = False) -> str:
    """A flagfile's text; reading it gives `as_values()`, with defaults for the options in `LOOKS`.

    changed: whether to leave out options that have their default.
    """
    lines, config = [], config.as_values()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None and field.name not in LOOKS and not (changed and value == field.default):
            value = str(value).lower() if isinstance(value, bool) else value
            lines.append(f"--{field.name}={value}")
    return "\n".join(lines) + "\n"


def differences(a: dict, b: dict, cls: type[Config]) -> list[str]:
    """Names of the options that differ from `a` to `b`, but may not change when a run continues.

    The paths of images and of weights may change. `Workdir.check_config` compares digests of the contents.

    a, b: options of the run and of its continuation, by name.
    """
    rules = [r for r in cls.INAPPLICABLE if r.decider in b and r.condition(b[r.decider])]
    idle = {name for rule in rules for name in rule.options}

    def alike(field: dataclasses.Field) -> bool:
        old, new, allowed = a.get(field.name, field.default), b.get(field.name), field.metadata["resumable"]
        are_paths = all(isinstance(v, str) and (field.name == "weights" or is_file(v)) for v in (old, new))
        return are_paths or old == new or (isinstance(allowed, str) and new == allowed)

    fields = [
        f for f in dataclasses.fields(cls) if f.metadata["resumable"] is not True and f.name not in idle
    ]
    return [field.name for field in fields if not alike(field)]
