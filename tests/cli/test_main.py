"""The command line as a whole: options in any place, help everywhere, errors that say what to do, quick answers."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mailserver.cli import main

ROOT = Path(__file__).parents[2]


def run(*words: str, stdin: str = "", cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mailserver.cli.main", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "100", **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], None),
        (["serve"], "serve"),
        (["--data", "serve", "status"], "status"),
        (["--data=serve", "status", "--json"], "status"),
        (["--config", "x", "--data", "y", "admin", "domain", "list"], "admin"),
        (["--help"], None),
        (["--show-completion"], None),
        (["no-such"], None),
    ],
)
def test_only_the_command_that_is_asked_for_is_imported(words: list[str], command: str | None) -> None:
    assert main._named(words) == command


def test_options_before_and_after_on_every_level(tmp_path: Path) -> None:
    data = str(tmp_path / "d")
    answers = [
        run(*words)
        for words in (
            ("--data", data, "status", "--json"),
            ("status", "--data", data, "--json"),
            ("status", "--json", f"--data={data}"),
        )
    ]
    assert {answer.returncode for answer in answers} == {3}
    assert {json.loads(answer.stdout)["data"] for answer in answers} == {data}


def test_the_later_one_counts(tmp_path: Path) -> None:
    answer = run("--data", "/nowhere", "status", "--data", str(tmp_path), "--json")
    assert json.loads(answer.stdout)["data"] == str(tmp_path)


def test_options_between_group_and_command(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[smtp]\nmax_hops = 0\n")
    for words in (
        ("--config", str(bad), "config", "check"),
        ("config", "--config", str(bad), "check"),
        ("config", "check", "--config", str(bad)),
    ):
        answer = run(*words)
        assert answer.returncode == 1 and "smtp.max_hops" in answer.stderr and "bad.toml" in answer.stderr


def _commands(app: typer.Typer, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        found.append((*before, name))
    for group in app.registered_groups:
        found.append((*before, str(group.name)))
        assert group.typer_instance is not None
        found += _commands(group.typer_instance, (*before, str(group.name)))
    return found


def test_help_with_an_example_on_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    commands = _commands(main.build())
    assert {("serve",), ("admin", "account", "import"), ("config", "describe")} <= set(commands)
    for words in ((), *commands):
        with pytest.raises(SystemExit) as ended:
            main.build()([*words, "--help"], prog_name="pillarbox")
        said = capsys.readouterr().out
        assert ended.value.code == 0
        assert "Example: " in said and "--data" in said and "--config" in said, words


def test_every_command_has_a_help_text() -> None:
    def check(app: typer.Typer) -> None:
        for command in app.registered_commands:
            assert command.callback is not None and inspect.getdoc(command.callback), command.callback
        for group in app.registered_groups:
            assert group.typer_instance is not None
            check(group.typer_instance)

    check(main.build())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    answer = run("--show-completion", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1", SHELL=f"/bin/{shell}")
    if answer.returncode != 0:
        answer = run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "pillarbox" in answer.stdout.lower()


def test_completion_knows_commands_and_what_is_below_them() -> None:
    environment = {"_PILLARBOX_COMPLETE": "complete_bash", "COMP_WORDS": "pillarbox ", "COMP_CWORD": "1"}
    assert {"serve", "admin", "version"} <= set(run(**environment).stdout.split())
    environment |= {"COMP_WORDS": "pillarbox admin account i", "COMP_CWORD": "3"}
    assert "import" in run(**environment).stdout.split()


def test_version_loads_nothing_heavy() -> None:
    answer = run("version", PYTHONPROFILEIMPORTTIME="1")
    assert answer.returncode == 0 and answer.stdout.startswith("pillarbox 0.")
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "typer" in loaded
    heavy = {
        "asyncio",
        "asyncpg",
        "aiohttp",
        "redis",
        "pydantic",
        "cryptography",
        "rich.console",
        "storage",
        "aiosmtpd",
    }
    assert not loaded & heavy
    assert json.loads(run("version", "--json").stdout)["version"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("no-such-command",), 2, "No such command"),
        (("serve", "--no-such-option"), 2, "No such option"),
        (("serve", "--workers", "many"), 2, "--workers"),
        (("serve", "--workers", "0"), 1, "server.workers"),
        (("serve", "--roles", "imap,pop9"), 1, "server.roles"),
        (("serve", "--postgres", "mysql://x"), 1, "storage.postgres"),
        (("--config", "/no/such/file", "serve"), 1, "/no/such/file"),
        (("status",), 3, "no server is running"),
        (("ready",), 3, "no server is running"),
        (("--data", "/proc/nothing", "serve"), 1, "/proc/nothing"),
        (("--data", "/usr", "serve"), 1, "holds other things"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    answer = run(*words, cwd=tmp_path)
    assert answer.returncode == code, answer.stderr
    assert said in answer.stderr and "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    answer = run("serve", "--postgres", "mysql://user:hunter2@host/db", cwd=tmp_path)
    assert answer.returncode == 1 and "hunter2" not in answer.stderr + answer.stdout


def test_stop_of_nothing_is_done(tmp_path: Path) -> None:
    answer = run("--data", str(tmp_path / "d"), "stop")
    assert answer.returncode == 0 and "no server is running" in answer.stdout


def test_config_describe_is_what_config_check_takes(tmp_path: Path) -> None:
    described = run("config", "describe")
    assert described.returncode == 0
    (tmp_path / "p.toml").write_text(described.stdout)
    assert run("config", "check", "--config", str(tmp_path / "p.toml")).stdout.strip() == "the settings are good"


def test_config_check_as_json(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[smtp]\nmax_hops = 0\nno_such = 1\n")
    answer = run("config", "check", "--config", str(tmp_path / "p.toml"), "--json", PILLARBOX_IMAP__MAX_ERRORS="x")
    found = json.loads(answer.stdout)
    assert answer.returncode == 1 and not found["ok"]
    assert {problem["key"] for problem in found["problems"]} == {
        "smtp.max_hops",
        "smtp.no_such",
        "PILLARBOX_IMAP__MAX_ERRORS",
    }


def test_data_from_the_environment(tmp_path: Path) -> None:
    answer = run("status", "--json", PILLARBOX_DATA=str(tmp_path / "e"))
    assert json.loads(answer.stdout)["data"] == str(tmp_path / "e")
    assert json.loads(run("status", "--json", cwd=tmp_path).stdout)["data"] == str(tmp_path / "data")


def test_a_reader_that_has_enough() -> None:
    command = f"{shlex.quote(sys.executable)} -m mailserver.cli.main config describe | head -1"
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert answer.stderr == "" and answer.stdout.startswith("#")
