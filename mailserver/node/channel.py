"""What the supervisor and a worker say to each other, over a pair of sockets that keep messages apart.

The worker says READY once its listeners are open, and TAKEN or FAILED to settings that it was told. Settings travel in
a file in memory whose descriptor is sent along, so that their size does not matter.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from config.schema import Config
from mailserver.net.tls import Pem

READY = b"ready"
TAKEN = b"taken"
FAILED = b"failed"
_SETTINGS = b"settings"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker can take up while it serves."""

    config: Config
    pem: Pem


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's; neither waits for the other."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def say(channel: socket.socket, word: bytes) -> None:
    """To the supervisor."""
    with contextlib.suppress(OSError):  # it is gone, and so shall we be
        channel.send(word)


def words(channel: socket.socket) -> list[bytes]:
    """What the worker has said since this was asked last."""
    found: list[bytes] = []
    try:
        while word := channel.recv(100):
            found.append(word)
    except OSError:  # there is no more, or nobody
        pass
    return found


def send(channels: Iterable[socket.socket], settings: Settings) -> None:
    """To workers; one that has died hears nothing."""
    with os.fdopen(os.memfd_create("settings"), "wb") as file:
        file.write(pickle.dumps(settings))
        file.flush()
        for channel in channels:
            with contextlib.suppress(OSError):
                socket.send_fds(channel, [_SETTINGS], [file.fileno()])


def receive(channel: socket.socket) -> Settings | None:
    """What the supervisor has sent; None where it sends no more. BlockingIOError where there is nothing."""
    word, descriptors, _, _ = socket.recv_fds(channel, len(_SETTINGS), 1)
    if not word:
        return None
    # The descriptors of all who read it share one position.
    with os.fdopen(descriptors[0], "rb") as file:
        octets = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
    settings = pickle.loads(octets)
    assert isinstance(settings, Settings)
    return settings
