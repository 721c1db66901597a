"""The example and the reference are what the schema says, and the example works."""

from __future__ import annotations

import re
import tomllib

from config.describe import EXAMPLE_FILE, REFERENCE_FILE, example, reference
from config.load import load, sections
from config.schema import Config


def test_both_files_are_up_to_date():
    hint = "run: .venv/bin/python -m config.describe"
    assert EXAMPLE_FILE.read_text(encoding="utf-8") == example(), hint
    assert REFERENCE_FILE.read_text(encoding="utf-8") == reference(), hint


def test_the_example_as_it_is_changes_nothing(tmp_path):
    assert load(EXAMPLE_FILE, environment={}) == Config()


def test_every_line_of_the_example_may_be_used(tmp_path):
    (tmp_path / "secret").write_text("ab" * 32)
    text = re.sub(r"(?m)^# (?=[a-z0-9_]+ = )", "", example())
    text = re.sub(r'"file:[^"]*"', '"file:secret"', text)
    (tmp_path / "p.toml").write_text(text)
    load(tmp_path / "p.toml", environment={})
    for name, section in sections():
        assert set(tomllib.loads(text)[name]) == set(section.model_fields)


def test_defaults_of_the_example_are_the_defaults(tmp_path):
    text = re.sub(r"(?m)^# (?=[a-z0-9_]+ = )", "", example())
    # Without the secrets, which are no files here, and what is set together with one.
    (tmp_path / "p.toml").write_text(
        re.sub(r'(?m)^(.*"file:[^"]*"|(s3_access_key_id|smarthost_username) = .*)$', "", text)
    )
    loaded, default = load(tmp_path / "p.toml", environment={}), Config()
    for name, section in sections():
        for key, about in section.model_fields.items():
            if not about.json_schema_extra["shown_default"]:
                assert getattr(getattr(loaded, name), key) == getattr(getattr(default, name), key), f"{name}.{key}"


def test_the_reference_names_every_setting():
    text = reference()
    for name, section in sections():
        part = text.split(f"## [{name}]")[1].split("\n## ")[0]
        assert set(re.findall(r"(?m)^\| `(\w+)` ", part)) == set(section.model_fields)
