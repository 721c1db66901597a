"""A name server on loopback that answers as it is told, by UDP and TCP on one port.

    with DnsServer({"example.org": ["MX 10 mx.example.org."], "mx.example.org": ["A 192.0.2.1"]}) as server:
        server.address                              # "127.0.0.1:40053"
        server.behaviour["broken.org"] = "servfail"
        server.count("example.org", "MX")           # how often that was asked

A name that is not there does not exist (NXDOMAIN); one with an empty list, or one that others lie below, exists and has
nothing. Aliases are followed, as a recursive server does. It works in a thread of its own, so that it serves tests with
and without a loop, and other processes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Literal, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Behaviour = Literal["servfail", "refuse", "silent", "garbage", "truncate", "no-udp"]
"""truncate: UDP says that the answer is too long, TCP gives it; no-udp: UDP is silent, TCP answers."""

_SECONDS = 10
_MAX_ALIASES = 16


class DnsServer:
    """records: `{"name": ["TYPE rdata", …]}`, names in lower case without the last dot, rdata as in a zone file."""

    def __init__(self, records: Mapping[str, list[str]] | None = None, *, ttl: int = 300) -> None:
        self.records = dict(records or {})
        self.ttl = ttl
        self.ttls: dict[str, int] = {}
        self.behaviour: dict[str, Behaviour] = {}
        self.delay = 0.0
        self.queries: list[tuple[str, str, str]] = []
        """Name, type, and "udp" or "tcp", in the order of arrival."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._datagrams: asyncio.DatagramTransport
        self._streams: asyncio.Server

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def count(self, name: str, kind: str) -> int:
        return sum(query[:2] == (name, kind) for query in self.queries)

    def __enter__(self) -> DnsServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_SECONDS)
        return self

    def __exit__(self, *args: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    # In the thread

    async def _start(self) -> None:
        stream, datagram = _sockets()
        self.port = stream.getsockname()[1]
        self._streams = await asyncio.start_server(self._connection, sock=stream)
        self._datagrams, _ = await self._loop.create_datagram_endpoint(lambda: _Datagrams(self._answer), sock=datagram)

    async def _stop(self) -> None:
        self._streams.close()
        self._datagrams.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(wire: bytes) -> None:
            writer.write(struct.pack(">H", len(wire)) + wire)

        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                self._answer(await reader.readexactly(length), "tcp", send)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def _answer(self, wire: bytes, transport: str, send: Callable[[bytes], None]) -> None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.queries.append((name, dns.rdatatype.to_text(question.rdtype), transport))
        answer = self._response(query, name, transport)
        if answer is not None and self.delay:
            self._loop.call_later(self.delay, send, answer)
        elif answer is not None:
            send(answer)

    def _response(self, query: dns.message.Message, name: str, transport: str) -> bytes | None:
        behaviour = self.behaviour.get(name)
        response = dns.message.make_response(query, recursion_available=True)
        if behaviour == "silent" or (behaviour == "no-udp" and transport == "udp"):
            return None
        if behaviour == "garbage":
            return response.to_wire()[:2] + b"\xff" * 30
        if behaviour in ("servfail", "refuse"):
            response.set_rcode(dns.rcode.SERVFAIL if behaviour == "servfail" else dns.rcode.REFUSED)
            return response.to_wire()
        self._fill(response, name, query.question[0].rdtype)
        wire = response.to_wire(max_size=65535, want_shuffle=False)
        if transport == "udp" and (behaviour == "truncate" or len(wire) > max(query.payload, 512)):
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        return wire

    def _fill(self, response: dns.message.Message, name: str, kind: dns.rdatatype.RdataType) -> None:
        """The answer section and the code."""
        wanted = dns.rdatatype.to_text(kind)
        for _ in range(_MAX_ALIASES):
            if not self._exists(name):
                response.set_rcode(dns.rcode.NXDOMAIN)
                return
            found = self._of_type(name, wanted)
            alias = self._of_type(name, "CNAME")
            if found or not alias:
                self._add(response, name, wanted, found)
                return
            self._add(response, name, "CNAME", alias)
            name = alias[0].rstrip(".").lower()

    def _exists(self, name: str) -> bool:
        return name in self.records or any(known.endswith(f".{name}") for known in self.records)

    def _of_type(self, name: str, kind: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.records.get(name, ()) if line.split(" ", 1)[0] == kind]

    def _add(self, response: dns.message.Message, name: str, kind: str, rdata: list[str]) -> None:
        if rdata:
            ttl = self.ttls.get(name, self.ttl)
            response.answer.append(dns.rrset.from_text_list(f"{name}.", ttl, "IN", kind, rdata))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes, str, Callable[[bytes], None]], None]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._answer(data, "udp", lambda wire: self._transport.sendto(wire, addr))


def _sockets() -> tuple[socket.socket, socket.socket]:
    """One for streams and one for datagrams, on one port that both could have."""
    while True:
        stream = socket.create_server(("127.0.0.1", 0))
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagram.bind(stream.getsockname())
        except OSError:
            stream.close()
            datagram.close()
        else:
            return stream, datagram
