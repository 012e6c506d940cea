"""A resolver whose answers a test decides, so that no test asks the network for a name."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

# Spellings of 127.0.0.1 and of nothing at all, which some resolver or other takes for an address.
LOOPBACK_SPELLINGS = (
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0",
    "１２７.0.0.1",  # noqa: RUF001 - full-width digits
    "127.0.0.1.",
    "localhost.",
    "[::ffff:7f00:1]",
    "[::1]",
)


class Names(AbstractResolver):
    """Answers every name with the next of these lists of addresses, the last one for ever.

    An empty list means that nobody knows the name.
    """

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not addresses:
            raise OSError(socket.EAI_NONAME, f"{host} is not known")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=6,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return
