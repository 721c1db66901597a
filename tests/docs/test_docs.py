"""What is written down is so: settings, files that are named, commands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from config.load import sections

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RFCS = (ROOT / "docs" / "rfcs.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "scripts" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def rows(text):
    """The rows of all tables of a page, as lists of cells."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    missing = [
        f"{name}.{key}"
        for name, section in sections()
        for key in section.model_fields
        if f"| `{key}` |" not in text.partition(f"## [{name}]")[2].partition("\n## ")[0]
    ]
    assert missing == []


def test_settings_that_pages_mention_exist():
    known = {key for _, section in sections() for key in section.model_fields}
    known |= {f"{name}.{key}" for name, section in sections() for key in section.model_fields}
    named = set(re.findall(r"`\[?(\w+)\]?\.(\w+)`", README + RFCS))
    names = {name for name, _ in sections()}
    assert {f"{section}.{key}" for section, key in named if section in names and key != "py"} <= known


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_pages_name_exist(page):
    named = re.findall(r"`([a-z_]+(?:/[\w.]+)+\.(?:py|sql|md|toml))", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


RFC_ROWS = [row for row in rows(RFCS) if row[0] != "RFC"]


@pytest.mark.parametrize("row", RFC_ROWS, ids=[row[0] for row in RFC_ROWS])
def test_an_rfc_row_names_its_state_and_files_that_exist(row):
    rfc, _title, state, files, notes = row
    assert re.fullmatch(r"[\d, ]+", rfc)
    assert state in ("Yes", "Partial", "No")
    named = re.findall(r"`([^`]+)`", files)
    assert bool(named) == (state != "No"), "a file for what is there, none for what is not"
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert state != "Partial" or notes, "say what is missing"


def test_no_rfc_has_two_rows():
    names = [row[0] for row in RFC_ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_decision_is_in_the_index_under_its_title():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.glob("[0-9]*.md"):
        number, _, title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(": ")
        assert path.name.startswith(f"{number}-")
        assert f"| [{number}]({path.name}) | {title} |" in index


def test_the_map_names_what_is_there():
    table = README.partition("## Map")[2].partition("\n## ")[0]
    for cells in rows(table):
        for name in re.findall(r"`([\w/.]+/)`", cells[0]):
            assert (ROOT / name).is_dir(), name


def test_scripts_that_are_named_exist_and_are_executable():
    named = set(re.findall(r"scripts/(\w+)(?![\w.])", README))
    for name in named:
        path = ROOT / "scripts" / name
        assert path.is_file(), name
        assert path.stat().st_mode & 0o111, name
    tools = {path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and "." not in path.name}
    assert tools <= named, "README.md names every script"


def test_continuous_integration_runs_the_test_command():
    command = re.search(r"## Tests\s+```sh\n(.+)\n```", README)[1]
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == f"exec {command}"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_commands_of_the_readme_exist():
    commands = re.findall(r"(?m)^(?:\.venv/bin/)?pillarbox ([a-z]+(?: [a-z]+)*)", README)
    assert len(commands) >= 3
    for command in sorted(set(commands)):
        done = subprocess.run(
            [Path(sys.executable).with_name("pillarbox"), *command.split(), "--help"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stderr)


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert f"Python 3.{low} to 3.{int(high) - 1}" in README


def test_the_lock_names_no_place_and_pins_everything():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(r"(?m)^\s*--(?!hash=)", lock) is None, "only hashes, no options"
    assert re.search(r"://| @ |^/|file:", lock) is None
    entries = re.findall(
        r"(?m)^([A-Za-z0-9][\w.-]*)==(\S+)((?:.*\\\n)(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock
    )
    assert len(entries) == len(re.findall(r"(?m)^[A-Za-z0-9]", lock))
    names = [name for name, _, _ in entries]
    assert len(names) == len(set(names))


def test_the_lock_has_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    run, _, dev = lock.partition("# --- dev:")

    def names(requirements):
        return {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in requirements}

    extras = project["optional-dependencies"]
    pinned = names(re.findall(r"(?m)^[A-Za-z0-9].*", run))
    assert names(project["dependencies"] + extras["embedded"] + extras["s3"]) <= pinned
    assert names(extras["dev"]) <= pinned | names(re.findall(r"(?m)^[A-Za-z0-9].*", dev))
