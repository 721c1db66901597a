"""A secret shows its text to nobody who does not ask for it."""

from __future__ import annotations

import json
import pickle
import traceback

import pytest
from pydantic import ValidationError

from config.schema import Config
from config.secret import Secret

WORD = "hunter2-and-more"
DSN = f"postgresql://user:{WORD}@db/mail"


@pytest.mark.parametrize(
    "show",
    [str, repr, "{}".format, "{!r:>30}".format, lambda secret: f"{secret}"],
)
def test_every_way_to_print_it_hides_it(show):
    assert WORD not in show(Secret(WORD))
    assert "***" in show(Secret(WORD))


def test_reveal_gives_the_text():
    assert Secret(WORD).reveal() == WORD


def test_a_configuration_prints_and_dumps_without_it():
    config = Config(storage={"postgres": DSN})
    assert config.storage.postgres.reveal() == DSN
    for text in (repr(config), str(config.storage), config.model_dump_json(), str(config.model_dump(mode="json"))):
        assert WORD not in text
    assert json.loads(config.model_dump_json())["storage"]["postgres"] == "***"


def test_a_wrong_one_is_not_quoted_in_the_error():
    with pytest.raises(ValidationError) as caught:
        Config(storage={"postgres": f"mysql://{WORD}", "install_key": WORD, "master_key": [WORD]})
    assert WORD not in "".join(traceback.format_exception(caught.value))


def test_equality_and_truth():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert not Secret("")


def test_it_survives_the_way_to_another_process():
    assert pickle.loads(pickle.dumps(Secret(WORD))).reveal() == WORD
