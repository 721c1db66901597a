"""Supervisor and worker talk."""

from __future__ import annotations

import pytest

from config.schema import Config
from mailserver.net.tls import Pem
from mailserver.node import channel
from mailserver.node.channel import Settings


def test_words_arrive_one_by_one() -> None:
    ours, theirs = channel.pair()
    assert channel.words(ours) == []
    channel.say(theirs, channel.READY)
    channel.say(theirs, channel.TAKEN)
    assert channel.words(ours) == [channel.READY, channel.TAKEN]
    assert channel.words(ours) == []


def test_settings_arrive_whole_with_their_secrets() -> None:
    """Each of several readers gets them, however large they are."""
    networks = [f"10.{high}.{low}.0/24" for high in range(200) for low in range(200)]
    config = Config(server={"trusted_networks": networks}, http={"metrics_token": "not to be shown"})
    settings = Settings(config, Pem(b"chain", b"key"))
    pairs = [channel.pair() for _ in range(3)]
    channel.send([ours for ours, _ in pairs], settings)
    for _, theirs in pairs:
        received = channel.receive(theirs)
        assert received == settings
        assert received.config.http.metrics_token.reveal() == "not to be shown"
        with pytest.raises(BlockingIOError):
            channel.receive(theirs)


def test_the_other_end_is_gone() -> None:
    ours, theirs = channel.pair()
    theirs.close()
    channel.send([ours], Settings(Config(), Pem(b"", b"")))
    assert channel.words(ours) == []
    ours, theirs = channel.pair()
    ours.close()
    channel.say(theirs, channel.READY)
    assert channel.receive(theirs) is None
