"""From a file, the environment and the command line to one `Config`, or to the list of everything that is wrong.

Three layers, the later wins, key by key: the TOML file, the environment (`PILLARBOX_SECTION__KEY`), the command line.
A secret may be kept in a file of its own: `key_file = "path"` or `key = "file:path"`, in any layer; a relative path
starts at the folder of the TOML file, elsewhere at the working directory. An empty environment variable counts as not
set, except for a list, which it empties.

Nothing stops at the first mistake. Every problem names where the value came from and its key; an unknown key is a
problem too, with the name that was probably meant. The value of a secret is never part of a message.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from config.schema import Config, user_path
from config.secret import Secret

PREFIX = "PILLARBOX_"
DELIMITER = "__"
FILE_SUFFIX = "_file"
FILE_SCHEME = "file:"
MAX_SECRET_OCTETS = 65536

Tree = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the file or layer, the key as it is written there, and what is the matter."""

    where: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.text) if part)


class ConfigErrors(Exception):
    """Everything that is wrong with the configuration."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(slots=True)
class Layer:
    """What one place says. Cleaning it moves what is wrong from `values` to `problems`."""

    where: str
    folder: Path
    values: Tree = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def key_name(self, section: str, key: str) -> str:
        """The key as it is written in this layer."""
        return f"{section}.{key}" if key else section

    def refuse(self, section: str, key: str, text: str) -> None:
        """Notes a problem and forgets the value."""
        self.problems.append(Problem(self.where, self.key_name(section, key), text))
        self.values.get(section, {}).pop(key, None)


class EnvironmentLayer(Layer):
    """The environment names its keys in another way."""

    def key_name(self, section: str, key: str) -> str:
        """The variable's name."""
        return f"{PREFIX}{section.upper()}{DELIMITER}{key.upper()}"


class LayerSource(PydanticBaseSettingsSource):
    """A layer as pydantic-settings merges it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(Config)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The layer's value of one section."""
        return self._layer.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._layer.values)


def load(
    path: Path | str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Config:
    """The configuration from a file (None: without one), the environment and overrides {section: {key: value}}.

    An override of None counts as not given. folder: where relative paths of secrets begin that stand outside the file;
    None: the working directory. Raises ConfigErrors with all problems.
    """
    folder = folder or Path.cwd()
    layers = [
        _overrides(overrides or {}, folder),
        _environment(os.environ if environment is None else environment, folder),
    ]
    if path is not None:
        layers.append(_file(Path(path)))
    for layer in layers:
        _refuse_unknown(layer)
        _read_secret_files(layer)
    problems = [problem for layer in reversed(layers) for problem in layer.problems]
    try:
        config = Config(_build_sources=(tuple(LayerSource(layer) for layer in layers), {}))
    except ValidationError as error:
        problems += _problems_of(error, layers)
    if problems:
        raise ConfigErrors(problems)
    return config


# The three layers as they are written


def _overrides(overrides: Mapping[str, Mapping[str, Any]], folder: Path) -> Layer:
    values = {
        section: {key: value for key, value in keys.items() if value is not None} for section, keys in overrides.items()
    }
    return Layer("command line", folder, values)


def _file(path: Path) -> Layer:
    layer = Layer(str(path), path.parent)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        layer.problems.append(Problem(layer.where, "", f"cannot be read: {error.strerror}"))
        return layer
    except (ValueError, RecursionError) as error:
        layer.problems.append(Problem(layer.where, "", f"is not TOML: {error}"))
        return layer
    for name, value in content.items():
        if isinstance(value, dict):
            layer.values[name] = value
        else:
            layer.problems.append(Problem(layer.where, name, f"stands outside a section; {_known_sections()}"))
    return layer


def _environment(environment: Mapping[str, str], folder: Path) -> Layer:
    layer = EnvironmentLayer("environment", folder)
    for name in sorted(environment):
        if not name.startswith(PREFIX):
            continue
        section, delimiter, key = name.removeprefix(PREFIX).lower().partition(DELIMITER)
        if delimiter:
            _put_text(layer, section, key, environment[name])
        elif meant := _with_delimiter(section):
            layer.problems.append(Problem(layer.where, name, f"is not a setting; did you mean {meant}?"))
    return layer


def _put_text(layer: Layer, section: str, key: str, text: str) -> None:
    """Text from the environment; a list of tables is written as JSON."""
    about = _field(section, key)
    is_list = about is not None and typing.get_origin(about.annotation) is tuple
    if not text and not is_list:
        return
    keys = layer.values.setdefault(section, {})
    keys[key] = text
    if is_list and text.lstrip().startswith("["):
        try:
            keys[key] = json.loads(text)
        except (ValueError, RecursionError) as error:
            layer.refuse(section, key, f"is not JSON: {error}")


def _with_delimiter(name: str) -> str:
    """PILLARBOX_SMTP_MAX_HOPS: a setting whose section and key are joined by one underscore only."""
    section, _, key = name.partition("_")
    return f"{PREFIX}{section.upper()}{DELIMITER}{key.upper()}" if key and section in Config.model_fields else ""


# What the schema knows


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """All sections with their classes."""
    for name, about in Config.model_fields.items():
        section = about.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        yield name, section


def _field(section: str, key: str) -> FieldInfo | None:
    about = Config.model_fields.get(section)
    fields = getattr(about.annotation, "model_fields", {}) if about is not None else {}
    found: FieldInfo | None = fields.get(key)
    return found


def is_secret(about: FieldInfo) -> bool:
    """Does this setting hold a secret?"""
    return _mentions_secret(about.annotation)


def _mentions_secret(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is types.UnionType or origin is typing.Union or origin is typing.Annotated:
        return any(_mentions_secret(part) for part in typing.get_args(annotation))
    return annotation is Secret


def _known_sections() -> str:
    return "the sections are " + ", ".join(Config.model_fields)


# Cleaning a layer


def _refuse_unknown(layer: Layer) -> None:
    known = dict(sections())
    for section in list(layer.values):
        if section not in known:
            for key in list(layer.values[section]) or [""]:
                layer.refuse(
                    section, key, f"no such section{_did_you_mean(section, known) or '; ' + _known_sections()}"
                )
            del layer.values[section]
            continue
        names = known[section].model_fields
        for key in list(layer.values[section]):
            about = names.get(key.removesuffix(FILE_SUFFIX))
            if key not in names and not (key.endswith(FILE_SUFFIX) and about is not None and is_secret(about)):
                layer.refuse(section, key, f"no such setting{_did_you_mean(key, names) or _elsewhere(key)}")


def _did_you_mean(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _elsewhere(key: str) -> str:
    """A known key in the wrong section."""
    homes = [f"{name}.{key}" for name, section in sections() if key in section.model_fields]
    return f"; did you mean {' or '.join(homes)}?" if homes else ""


def _read_secret_files(layer: Layer) -> None:
    for section, model in sections():
        keys = layer.values.get(section, {})
        for key, about in model.model_fields.items():
            if not is_secret(about):
                continue
            value, file = keys.get(key), keys.pop(key + FILE_SUFFIX, None)
            if value is not None and file is not None:
                layer.refuse(section, key, f"is given twice: {key} and {key}{FILE_SUFFIX}")
            elif isinstance(value, str) and value.startswith(FILE_SCHEME):
                _read_secret(layer, section, key, value.removeprefix(FILE_SCHEME))
            elif file is not None:
                _read_secret(layer, section, key, file)


def _read_secret(layer: Layer, section: str, key: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        layer.refuse(section, key + FILE_SUFFIX, "must be the path of a file")
        return
    try:
        path = layer.folder / user_path(name)
    except ValueError as error:
        layer.refuse(section, key, f"the file that holds it: {error}")
        return
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_OCTETS + 1)
        text = content.decode().strip()
    except OSError as error:
        layer.refuse(section, key, f"the file {path} cannot be read: {error.strerror}")
        return
    except UnicodeDecodeError:
        layer.refuse(section, key, f"the file {path} is not text")
        return
    if not text or len(content) > MAX_SECRET_OCTETS:
        layer.refuse(section, key, f"the file {path} is {'too large for a secret' if text else 'empty'}")
        return
    layer.values[section][key] = Secret(text)


# What pydantic found


def _problems_of(error: ValidationError, layers: list[Layer]) -> list[Problem]:
    problems = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        section, key, *inside = [str(part) for part in detail["loc"]] + [""] * (2 - len(detail["loc"]))
        place = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in inside)
        layer = _origin(layers, section, key)
        problems.append(
            Problem(layer.where, layer.key_name(section, key) + place, _plain(detail["type"], detail["msg"]))
        )
    return problems


def _origin(layers: list[Layer], section: str, key: str) -> Layer:
    """The layer that had the last word on this key."""
    for layer in layers:
        keys = layer.values.get(section)
        if keys is not None and (key in keys or not key):
            return layer
    return layers[-1]


_PLAIN = {"extra_forbidden": "is not known here", "missing": "is missing"}


def _plain(kind: str, message: str) -> str:
    """Pydantic's text as the rest of a sentence that begins with the key."""
    message = _PLAIN.get(kind, message).removeprefix("Value error, ")
    message = (
        message.replace("Input should be", "must be").replace("String should", "must").replace("Tuple should", "must")
    )
    return message[:1].lower() + message[1:]
