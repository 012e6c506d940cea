"""Where what lies: partitions, each a hash tag, and the version of how data is laid out.

A job with its events, its messages and the log of their deliveries lies in one partition, by the
hash of its id: one script writes them at once, and the partitions spread over a Cluster's nodes.
Webhooks lie in a partition of their own.
"""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass

from gateway.core.error import SettingsError
from gateway.store.redis.client import RedisClient

LAYOUT_VERSION = 1
PARTITIONS = 16  # part of the layout: another number would look for jobs elsewhere

_TOO_NEW = (
    "redis.namespace: the data in {} has layout {}, and this gateway knows {}: "
    "use the newer gateway that wrote it, or another namespace"
)


@dataclass(frozen=True, slots=True)
class Partition:
    """`prefix` begins every key; `stripe` tells the partition's audit lines from others'."""

    stripe: int
    prefix: bytes


class Layout:
    """The partitions of one namespace."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self.of_jobs = tuple(
            Partition(number, client.key(tag=str(number))) for number in range(PARTITIONS)
        )
        self.of_webhooks = Partition(PARTITIONS, client.key(tag="webhooks"))
        self.all = (*self.of_jobs, self.of_webhooks)
        self.channel = client.key("jobs")

    def of_job(self, job_id: str) -> Partition:
        """Where a job, and every message about it, lies."""
        return self.of_jobs[crc32(job_id.encode()) % PARTITIONS]

    async def is_there(self) -> bool:
        """False when the server has lost its data: it was flushed, or came back without."""
        return bool(await self._client.command("EXISTS", self._client.key("layout")))

    async def open(self) -> None:
        """Claim the namespace for this layout, or find that it has it already.

        Raises SettingsError for data of a newer layout, StoreUnavailable.
        """
        await self._client.command("SET", self._client.key("layout"), LAYOUT_VERSION, "NX")
        await self.check()

    async def check(self) -> None:
        """Raises as `open` does; changes nothing."""
        key = self._client.key("layout")
        found = await self._client.command("GET", key) or b"0"  # nothing is there yet
        if found.isdigit() and 0 < int(found) < LAYOUT_VERSION:
            problem = (
                f"redis.namespace: the data in {self._client.name} has layout {found.decode()}"
            )
            raise SettingsError([f"{problem}; stop the gateways, then `gateway migrate up store`"])
        if not found.isdigit() or int(found) > LAYOUT_VERSION:
            raise SettingsError(
                [_TOO_NEW.format(self._client.name, found.decode(), LAYOUT_VERSION)],
            )
