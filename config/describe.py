"""The settings in words, written from `config/schema.py`: an annotated example in TOML, and a reference in Markdown.

`config/example.toml` and `docs/settings.md` are the output of `python -m config.describe`; a test keeps them equal to
it. The example says the defaults as comments, so that it may be used as it is and shows what differs once edited.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.load import DELIMITER, FILE_SUFFIX, PREFIX, is_secret, sections
from config.schema import GIB, KIB, MIB

_ROOT = Path(__file__).parent.parent
EXAMPLE_FILE = _ROOT / "config" / "example.toml"
REFERENCE_FILE = _ROOT / "docs" / "settings.md"

_EXAMPLE_HEAD = """\
Settings of Pillarbox, each with its default. Take away the # in front of a key to change it.
Every setting may also come from the environment, as PILLARBOX_SECTION__KEY, which wins over this file.
A secret may stand in a file of its own: key_file = "path", or key = "file:path".
Sizes are octets, or a text such as "50 MiB". `pillarbox config check` reports all mistakes at once.
A changed setting takes effect by what its comment ends with: `pillarbox reload`, which closes no connection;
`pillarbox reload --workers`, which replaces the workers one by one; or a restart of the server.
"""

_REFERENCE_HEAD = """\
# Settings

Written from `config/schema.py` by `python -m config.describe`; do not edit.

One TOML file (`--config FILE`), the environment and the options of `pillarbox serve`; the later wins. The environment
variable of `key` in `[section]` is `PILLARBOX_SECTION__KEY`; a list is written with commas there, a list of tables as
JSON. A secret may stand in a file of its own: `key_file = "path"`, or `key = "file:path"`. Sizes are octets, or a text
such as `"50 MiB"`. `pillarbox config check` reports all mistakes at once, `pillarbox config describe` prints the
annotated example.

The column *change* says what makes a changed setting take effect in a running server: `reload` (or SIGHUP), which
closes no connection; `reload --workers` (or SIGUSR2), which replaces the worker processes one by one; or a restart.
"""


def example() -> str:
    """The annotated example in TOML."""
    lines = [f"# {line}" for line in _EXAMPLE_HEAD.splitlines()]
    for name, section in sections():
        lines += ["", f"# {section.__doc__}", f"[{name}]"]
        for key, about in section.model_fields.items():
            lines += [*_comment(key, about), f"# {key} = {toml(_shown_value(key, about))}", ""]
        lines.pop()
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The reference in Markdown."""
    lines = _REFERENCE_HEAD.splitlines()
    for name, section in sections():
        lines += ["", f"## [{name}]", "", section.__doc__ or "", ""]
        lines += ["| key | default | change | meaning |", "|---|---|---|---|"]
        lines += [_row(name, key, about) for key, about in section.model_fields.items()]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """One value as TOML."""
    if isinstance(value, BaseModel):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    # JSON's strings, booleans and numbers are TOML's, too; DEL and what lies beyond the BMP never occurs here.
    return json.dumps(value, ensure_ascii=False)


def _extra(about: FieldInfo) -> dict[str, Any]:
    return about.json_schema_extra if isinstance(about.json_schema_extra, dict) else {}


def _default(key: str, about: FieldInfo) -> Any:
    """The default as one would write it; None where it is said in words."""
    if _extra(about).get("shown_default") or about.default is PydanticUndefined:
        return None
    return _size(key, about.default)


def _size(key: str, value: Any) -> Any:
    if key.endswith("_octets") and isinstance(value, int):
        for factor, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
            if value >= factor and value % factor == 0:
                return f"{value // factor} {unit}"
    return value


def _shown_value(key: str, about: FieldInfo) -> Any:
    default = _default(key, about)
    return default if default is not None else _size(key, _extra(about).get("example"))


def _notes(key: str, about: FieldInfo) -> Iterator[str]:
    extra = _extra(about)
    if shown := extra.get("shown_default"):
        yield f"Default: {shown}."
    if unit := extra.get("unit"):
        yield f"Unit: {unit}."
    if bounds := _bounds(key, about):
        yield f"{bounds}."
    yield f"Change: {_CHANGES[extra.get('change', 'restart')]}."


_CHANGES: dict[Any, str] = {"reload": "reload", "workers": "reload --workers", "restart": "restart"}
_BOUND_NAMES = (("ge", "at least"), ("gt", "more than"), ("le", "at most"))


def _bounds(key: str, about: FieldInfo) -> str:
    """The least and the largest value, in words."""
    found = [
        f"{word} {_size(key, getattr(constraint, name))}"
        for name, word in _BOUND_NAMES
        for constraint in about.metadata
        if getattr(constraint, name, None) is not None
    ]
    return _upper_first(", ".join(found))


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _comment(key: str, about: FieldInfo) -> list[str]:
    text = " ".join([about.description or "", *_notes(key, about)])
    return [f"# {line}" for line in textwrap.wrap(text, 116, break_on_hyphens=False)]


def _row(section: str, key: str, about: FieldInfo) -> str:
    extra = _extra(about)
    default = _default(key, about)
    shown = f"`{toml(default)}`" if default is not None else str(extra.get("shown_default", ""))
    meaning = about.description or ""
    if extra.get("unit"):
        meaning += f" Unit: {extra['unit']}."
    if bounds := _bounds(key, about):
        meaning += f" {bounds}."
    if is_secret(about):
        meaning += f" Secret (`{key}{FILE_SUFFIX}`, `{variable(section, key)}{FILE_SUFFIX.upper()}`)."
    return f"| `{key}` | {shown} | {_CHANGES[extra.get('change', 'restart')]} | {meaning} |"


def variable(section: str, key: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{section.upper()}{DELIMITER}{key.upper()}"


def main() -> None:
    """Writes both files anew."""
    EXAMPLE_FILE.write_text(example(), encoding="utf-8")
    REFERENCE_FILE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
