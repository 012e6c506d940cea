"""A DNS server on 127.0.0.1 that changes its mind, and a resolver that asks it (RFC 1035, UDP)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from aiohttp.abc import AbstractResolver, ResolveResult

_A, _AAAA, _IN = 1, 28, 1
_ANSWERED, _NO_SUCH_NAME = 0x8180, 0x8183
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, length
_NAME_AT_12 = b"\xc0\x0c"


class DnsServer(asyncio.DatagramProtocol):
    """Answers each question for a name with the next of its lists of addresses, the last for ever.

    No answer may be kept (TTL 0). A name it does not have does not exist.
    """

    def __init__(self, zone: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._zone = {name: [list(answer) for answer in answers] for name, answers in zone.items()}
        self.asked: Counter[str] = Counter()
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        identifier = _HEADER.unpack_from(data)[0]
        name, end = _read_name(data, _HEADER.size)
        kind = struct.unpack_from("!H", data, end)[0]
        question = data[_HEADER.size : end + 4]
        answers = self._zone.get(name)
        flags, records = _NO_SUCH_NAME, b""
        count = 0
        if answers is not None:
            flags = _ANSWERED
            addresses = [each for each in answers[0] if (":" in each) == (kind == _AAAA)]
            if kind == _A:
                self.asked[name] += 1
                if len(answers) > 1:
                    answers.pop(0)
            count = len(addresses)
            records = b"".join(_record(each, kind) for each in addresses)
        header = _HEADER.pack(identifier, flags, 1, count, 0, 0)
        self._transport.sendto(header + question + records, addr)


class DnsResolver(AbstractResolver):
    """Asks one server, over UDP, each time anew."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await _Question(host).ask(self._port)
        if not found:
            raise OSError(socket.EAI_NONAME, f"{host} is not known")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        return


class _Question(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        self._question = labels + b"\x00" + struct.pack("!HH", _A, _IN)
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def ask(self, port: int) -> list[str]:
        """The addresses of the answer."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, remote_addr=("127.0.0.1", port)
        )
        try:
            transport.sendto(_HEADER.pack(1, 0x0100, 1, 0, 0, 0) + self._question)
            async with asyncio.timeout(5):
                data = await self._answer
        finally:
            transport.close()
        count = _HEADER.unpack_from(data)[3]
        at = _HEADER.size + len(self._question)
        size = len(_NAME_AT_12) + _RECORD.size + 4
        return [
            str(ipaddress.IPv4Address(data[at + n * size + size - 4 : at + (n + 1) * size]))
            for n in range(count)
        ]

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self._answer.done():
            self._answer.set_result(data)


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while (length := data[at]) != 0:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower(), at + 1


def _record(address: str, kind: int) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return _NAME_AT_12 + _RECORD.pack(kind, _IN, 0, len(packed)) + packed
