"""File, environment and options become one configuration, or one list of all that is wrong."""

from __future__ import annotations

import pytest

from config.load import ConfigErrors, load
from config.schema import MIB

KEY = "ab" * 32


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def problems(path=None, overrides=None, environment=None):
    with pytest.raises(ConfigErrors) as caught:
        load(path, overrides, environment=environment or {})
    return [str(problem) for problem in caught.value.problems]


def test_nothing_given_is_the_default():
    assert load(environment={}).smtp.max_hops == 50


def test_the_later_layer_wins_key_by_key(tmp_path):
    file = write(tmp_path / "p.toml", "[smtp]\nmax_hops = 11\nmax_errors = 12\nmax_commands = 13\n")
    environment = {"PILLARBOX_SMTP__MAX_ERRORS": "22", "PILLARBOX_SMTP__MAX_COMMANDS": "23"}
    config = load(file, {"smtp": {"max_commands": 33, "max_recipients": None}}, environment=environment)
    assert (config.smtp.max_hops, config.smtp.max_errors, config.smtp.max_commands) == (11, 22, 33)
    assert config.smtp.max_recipients == 1000


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("SERVER__HOST", "0.0.0.0, ::", lambda c: c.server.host == ("0.0.0.0", "::")),
        ("SERVER__TRUSTED_NETWORKS", "", lambda c: c.server.trusted_networks == ()),
        ("SERVER__TRUSTED_NETWORKS", '["10.0.0.0/8"]', lambda c: c.server.trusted_networks == ("10.0.0.0/8",)),
        ("SERVER__INSECURE_LOOPBACK_AUTH", "true", lambda c: c.server.insecure_loopback_auth),
        ("SERVER__WORKERS", "", lambda c: c.server.workers is None),
        ("MAIL__MAX_MESSAGE_OCTETS", "2 MiB", lambda c: c.mail.max_message_octets == 2 * MIB),
        (
            "MAIL__DEFAULT_MAILBOXES",
            '[{"name": "Neu", "use": ""}]',
            lambda c: c.mail.default_mailboxes[0].name == "Neu",
        ),
        ("STORAGE__REDIS", "off", lambda c: c.storage.redis.reveal() == "off"),
    ],
)
def test_values_from_the_environment(name, text, read):
    assert read(load(environment={"PILLARBOX_" + name: text}))


def test_other_variables_are_none_of_our_business():
    load(environment={"PILLARBOX_DATA": "x", "PILLARBOX_CONFIG": "y", "HOME": "z", "PILLARBOXES__A": "1"})


@pytest.mark.parametrize("line", ['install_key = "file:{}"', 'install_key_file = "{}"'])
def test_secrets_from_files(tmp_path, line):
    secret = write(tmp_path / "key", KEY + "\n")
    for name in (secret, "key"):  # relative: to the folder of the configuration file
        file = write(tmp_path / "p.toml", "[storage]\n" + line.format(name))
        assert load(file, environment={}).storage.install_key.reveal() == KEY
    environment = {"PILLARBOX_STORAGE__INSTALL_KEY_FILE": str(secret)}
    assert load(environment=environment).storage.install_key.reveal() == KEY


def test_a_secret_file_in_the_environment_wins_over_the_secret_in_the_file(tmp_path):
    secret = write(tmp_path / "key", "cd" * 32)
    file = write(tmp_path / "p.toml", f'[storage]\ninstall_key = "{KEY}"')
    config = load(file, environment={"PILLARBOX_STORAGE__INSTALL_KEY_FILE": str(secret)})
    assert config.storage.install_key.reveal() == "cd" * 32


def test_all_problems_are_reported_at_once_with_file_and_key(tmp_path):
    file = write(
        tmp_path / "p.toml",
        """
        loose = 1
        [server]
        hots = "a"
        port_offset = -1
        insecure_loopback_auth = "maybe"
        [storage]
        postgres_file = "absent"
        install_key = "abc"
        max_hops = 3
        [smpt]
        max_hops = 3
        [mail]
        default_mailboxes = [{ name = "a", use = "Sent" }, { nam = "b" }]
        [tls]
        key = "a"
        """,
    )
    environment = {"PILLARBOX_SMTP__MAX_ERRORS": "many", "PILLARBOX_SERVER_HOST": "x"}
    found = problems(file, {"server": {"workers": 0}}, environment)
    expected = [
        (f"{file}: loose", "outside a section"),
        (f"{file}: server.hots", "did you mean host?"),
        (f"{file}: server.port_offset", "0"),
        (f"{file}: server.insecure_loopback_auth", "boolean"),
        (f"{file}: storage.postgres", "No such file"),
        (f"{file}: storage.install_key", "64 hexadecimal digits"),
        (f"{file}: storage.max_hops", "did you mean smtp.max_hops?"),
        (f"{file}: smpt.max_hops", "did you mean smtp?"),
        (f"{file}: mail.default_mailboxes[0].use", "pattern"),
        (f"{file}: mail.default_mailboxes[1].name", "missing"),
        (f"{file}: mail.default_mailboxes[1].nam", "not known"),
        (f"{file}: tls", "together"),
        ("environment: PILLARBOX_SMTP__MAX_ERRORS", "integer"),
        ("environment: PILLARBOX_SERVER_HOST", "PILLARBOX_SERVER__HOST"),
        ("command line: server.workers", "1"),
    ]
    for start, word in expected:
        assert [text for text in found if text.startswith(start + ":") and word in text], (start, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "cannot be read"), (b"[server\n", "is not TOML"), (b"[server]\nhost = '\xff'", "is not TOML")],
)
def test_a_file_that_is_none(tmp_path, content, word):
    file = tmp_path / "p.toml"
    if content is not None:
        file.write_bytes(content)
    (found,) = problems(file)
    assert str(file) in found
    assert word in found


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"\xff\xfe", "not text"), (b"a" * 70000, "too large"), (None, "No such file")],
)
def test_a_secret_file_that_is_none(tmp_path, content, word):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    (found,) = problems(write(tmp_path / "p.toml", '[storage]\npostgres = "file:key"'))
    assert "storage.postgres" in found
    assert word in found


def test_a_secret_given_twice_is_refused(tmp_path):
    (found,) = problems(write(tmp_path / "p.toml", f'[storage]\nmaster_key = "{KEY}"\nmaster_key_file = "x"'))
    assert "twice" in found


def test_only_secrets_have_files():
    assert "no such setting" in problems(environment={"PILLARBOX_LOG__LEVEL_FILE": "x"})[0]


def test_no_problem_quotes_a_secret(tmp_path):
    word = "do-not-show-me"
    file = write(
        tmp_path / "p.toml", f'[storage]\npostgres = "{word}"\nmaster_key = "{word}"\n[http]\nmetrics_token = 5'
    )
    assert word not in "\n".join(problems(file, environment={"PILLARBOX_STORAGE__INSTALL_KEY": word}))


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        ("tls", 'certificate = "~nosuchuser/c.pem"\nkey = "k.pem"', "tls.certificate: ~nosuchuser is not known"),
        ("tls", 'certificate = "c\\u0000.pem"\nkey = "k.pem"', "tls.certificate: is no path: it has a NUL"),
        ("storage", 'blobs = "~nosuchuser/blobs"', "storage.blobs: ~nosuchuser is not known: no such user"),
        ("storage", 'blobs = "bl\\u0000bs"', "storage.blobs: is no path: it has a NUL"),
        (
            "storage",
            'install_key_file = "~nosuchuser/k"',
            "storage.install_key: the file that holds it: ~nosuchuser is",
        ),
        ("http", 'metrics_token = "file:a\\u0000b"', "http.metrics_token: the file that holds it: is no path"),
    ],
)
def test_a_path_that_cannot_be_one(tmp_path, section, line, said):
    file = write(tmp_path / "p.toml", f"[{section}]\n{line}\n[smtp]\nmax_hops = 0\n")
    found = problems(file)
    assert [problem for problem in found if said in problem] and len(found) == 2, found


def test_a_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = write(tmp_path / "p.toml", '[storage]\nblobs = "~/blobs"\ninstall_key_file = "~/key"\n')
    write(tmp_path / "key", KEY)
    assert load(file, environment={}).storage.blobs == str(tmp_path / "blobs")


def test_nesting_without_end_is_a_mistake_like_others(tmp_path):
    file = write(tmp_path / "p.toml", "a = " + "[" * 100_000)
    assert len(problems(file)) == 1
    assert len(problems(environment={"PILLARBOX_SERVER__HOST": "[" * 1_000_000})) == 1
