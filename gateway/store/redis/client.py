"""The one way to Redis: connected when first needed, healed by itself, every wait bounded.

A single server or a Cluster. Whatever the server's condition is, a caller sees an answer or
`StoreUnavailable`, within the connect time-out and the time-out together. A call that failed may
have been carried out: scripts are written so that making one again does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gateway.core.error import StoreUnavailable
from gateway.settings.store import Redis
from gateway.store.redis.cluster import SlotMap, redirect
from gateway.store.redis.connection import Connection, Part, connect, pack
from gateway.store.redis.endpoint import Address, endpoint_of, written
from gateway.store.redis.failure import Lost, ReplyError, translate, unavailable
from gateway.store.redis.script import Script

MAX_REDIRECTS = 3
RECONNECT_SECONDS = 0.1  # after a failed attempt the next ones fail at once for so long
_DEMOTED = frozenset({"READONLY", "MASTERDOWN"})
_REMEDY = "start it, or correct redis.url"


class RedisClient:
    """Commands and scripts, each sent to the node that holds its key.

    Concurrent calls share a connection a node, and what is called in the same turn of the loop
    leaves in one write.
    """

    def __init__(self, settings: Redis) -> None:
        self._settings = settings
        self._endpoint = endpoint_of(settings)
        self._slots = SlotMap() if settings.cluster else None
        self._connections: dict[Address, Connection] = {}
        self._opening: dict[Address, asyncio.Task[Connection]] = {}
        self._failed: dict[Address, tuple[float, StoreUnavailable]] = {}
        self._mapping: asyncio.Task[None] | None = None
        self._is_stale = True
        self._namespace = settings.namespace.encode()

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return self._endpoint.name

    def key(self, *parts: str, tag: str | None = None) -> bytes:
        """A key of this gateway's: `gw:part:part`, or `{gw:tag}:part:part`.

        Keys with one tag lie on one node of a Cluster, so that one script may touch them all.
        """
        head = self._namespace if tag is None else b"{%b:%b}" % (self._namespace, tag.encode())
        return b":".join((head, *(part.encode() for part in parts)))

    @property
    def is_cluster(self) -> bool:
        """True when keys without a common tag may lie on different nodes."""
        return self._slots is not None

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Part] = (),
        *,
        patience_seconds: float | None = None,
    ) -> Any:
        """What the script returns; a server that does not know it (any more) is sent its text.

        With `patience_seconds` it waits for no connection, and for each reply no longer than that;
        one that comes later is dropped. Raises `StoreUnavailable`, and `ReplyError` for a defect of
        the script.
        """
        rest = (len(keys), *keys, *args)
        patience = patience_seconds
        reply = await self._send(keys[0], pack(("EVALSHA", script.sha, *rest)), patience)
        if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT":
            reply = await self._send(keys[0], pack(("EVAL", script.text, *rest)), patience)
        return self._checked(reply)

    async def command(
        self, name: str, key: bytes, *args: Part, patience_seconds: float | None = None
    ) -> Any:
        """The reply to a command about one key. Waits, and raises, as `run` does."""
        return self._checked(await self._send(key, pack((name, key, *args)), patience_seconds))

    async def commands(self, commands: Sequence[tuple[str, bytes, *tuple[Part, ...]]]) -> list[Any]:
        """The replies to several commands, each about its own key, sent together."""
        return await asyncio.gather(*(self.command(*each) for each in commands))

    async def everywhere(self, *parts: Part) -> list[Any]:
        """The reply of every primary to a command without a key. Raises as `run` does."""
        command = pack(parts)

        async def ask(address: Address) -> Any:
            reply = await self._exchange(address, command)
            return self._checked(reply)

        return await asyncio.gather(*(ask(address) for address in await self.primaries()))

    async def ping(self) -> None:
        """Return when every primary answers. Raises as `run` does."""
        await self.everywhere("PING")

    async def eviction_policy(self) -> str | None:
        """The server's `maxmemory-policy`; None where it does not tell. Raises as `run` does."""
        told: bytes = (await self.everywhere("INFO", "memory"))[0]
        for line in told.decode().splitlines():
            name, _, value = line.partition(":")
            if name == "maxmemory_policy":
                return value
        return None

    async def primaries(self) -> Sequence[Address]:
        """Every node that holds slots; the one server where there is no Cluster."""
        if self._slots is None:
            return self._endpoint.addresses[:1]
        if self._is_stale:
            await asyncio.shield(self._refresh())
        return self._slots.primaries()

    async def connection(self, address: Address) -> Connection:
        """The open connection to a node. Raises `StoreUnavailable`."""
        found = self._connections.get(address)
        if found is not None and found.is_open:
            return found
        # Shielded: whoever is cancelled must not take the connection from the others.
        return await asyncio.shield(self._begin(address))

    async def open_push(self, take_push: Callable[[Any], None]) -> Connection:
        """A connection of its own for what comes unasked for: the caller ends it.

        To the first node that can be reached. Raises `StoreUnavailable`.
        """
        failure: StoreUnavailable | None = None
        known = () if self._slots is None else self._slots.primaries()
        for address in dict.fromkeys((*known, *self._endpoint.addresses)):
            try:
                return await self._connect(address, take_push)
            except StoreUnavailable as error:
                failure = error
        assert failure is not None
        raise failure

    async def close(self) -> None:
        """End every connection; a later call opens one again."""
        tasks = [*self._opening.values(), *([self._mapping] if self._mapping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._connections.values():
            each.end("the gateway closed it")
        self._connections.clear()

    async def _send(self, key: bytes, command: bytes, patience: float | None = None) -> Any:
        if self._slots is None:
            return await self._exchange(self._endpoint.addresses[0], command, patience=patience)
        return await self._send_to_slot(self._slots, key, command, patience)

    async def _send_to_slot(
        self, slots: SlotMap, key: bytes, command: bytes, patience: float | None
    ) -> Any:
        """The reply of the node that has the key, wherever redirections lead."""
        if self._is_stale:
            refreshing = self._refresh()
            if patience is None:
                await asyncio.shield(refreshing)
        node = slots.node(key)
        if node is None:
            self._is_stale = True
            raise unavailable(self.name, "no primary has the key's slot", "mend the cluster")
        asking = False
        for _ in range(MAX_REDIRECTS + 1):
            try:
                reply = await self._exchange(node, command, asking=asking, patience=patience)
            except StoreUnavailable:
                self._is_stale = True  # perhaps another node has taken its place
                raise
            code = reply.code if isinstance(reply, ReplyError) else ""
            asking = code == "ASK"
            if code == "CLUSTERDOWN":
                self._is_stale = True
            if code not in ("MOVED", "ASK"):
                return reply
            slot, node = self._redirect(reply, node)
            if code == "MOVED":
                slots.move(slot, node)
                self._is_stale = True  # one that moved is seldom alone
        raise unavailable(self.name, "redirected time and again", "wait until its slots have moved")

    async def _exchange(
        self,
        address: Address,
        command: bytes,
        *,
        asking: bool = False,
        patience: float | None = None,
    ) -> Any:
        connection = self._connections.get(address)
        if connection is None or not connection.is_open:
            if patience is not None:
                self._begin(address)
                raise unavailable(written(address), "it is not connected yet", _REMEDY)
            connection = await self.connection(address)
        if asking:
            connection.send(pack(("ASKING",))).add_done_callback(_forget)
        try:
            if patience is None:
                reply = await connection.send(command)
            else:
                reply = await connection.send_patiently(command, patience)
        except Lost as error:
            raise unavailable(written(address), str(error), _REMEDY) from error
        if isinstance(reply, ReplyError) and reply.code in _DEMOTED:
            connection.end("it is no primary any more")  # its name may lead to another by now
            self._is_stale = True
        return reply

    async def _open(self, address: Address) -> Connection:
        try:
            opened = await self._connect(address)
        except StoreUnavailable as error:
            self._failed[address] = (asyncio.get_running_loop().time(), error)
            raise
        finally:
            del self._opening[address]
        self._failed.pop(address, None)
        self._connections[address] = opened
        return opened

    def _begin(self, address: Address) -> asyncio.Task[Connection]:
        """The connection to come. Raises `StoreUnavailable` soon after an attempt that failed."""
        opening = self._opening.get(address)
        if opening is None:
            self._refuse_at_once(address)
            opening = asyncio.create_task(self._open(address))
            opening.add_done_callback(_forget)
            self._opening[address] = opening
        return opening

    async def _connect(
        self, address: Address, take_push: Callable[[Any], None] | None = None
    ) -> Connection:
        try:
            return await connect(
                *address,
                greeting=self._endpoint.greeting,
                tls=self._endpoint.tls,
                connect_seconds=self._settings.connect_timeout,
                timeout_seconds=self._settings.timeout,
                take_push=take_push,
            )
        except Lost as error:
            raise unavailable(written(address), str(error), _REMEDY) from error
        except ReplyError as error:
            found = translate(error, written(address))
            if isinstance(found, StoreUnavailable):
                raise found from error
            raise unavailable(written(address), str(error), _REMEDY) from error

    def _refuse_at_once(self, address: Address) -> None:
        """Many calls while the server is away cost one attempt to connect now and then."""
        failed = self._failed.get(address)
        if failed is not None:
            at, error = failed
            if asyncio.get_running_loop().time() - at < RECONNECT_SECONDS:
                raise StoreUnavailable(error.detail)

    def _refresh(self) -> asyncio.Task[None]:
        if self._mapping is None:
            self._mapping = asyncio.create_task(self._load_slots())
            self._mapping.add_done_callback(_forget)
        return self._mapping

    async def _load_slots(self) -> None:
        """Ask the nodes known, then those of the settings, until one tells."""
        assert self._slots is not None
        try:
            failure: Exception = Lost("no node answers")
            for node in dict.fromkeys((*self._slots.primaries(), *self._endpoint.addresses)):
                try:
                    reply = await self._exchange(node, pack(("CLUSTER", "SLOTS")))
                    self._slots.replace(self._checked(reply), node)
                except (StoreUnavailable, ReplyError, Lost) as error:
                    failure = error
                    continue
                self._is_stale = False
                return
            if isinstance(failure, StoreUnavailable):
                raise StoreUnavailable(failure.detail) from failure
            raise unavailable(self.name, str(failure), "unset redis.cluster if it is none")
        finally:
            self._mapping = None

    def _redirect(self, reply: ReplyError, told_by: Address) -> tuple[int, Address]:
        try:
            return redirect(str(reply), told_by)
        except Lost as error:
            raise unavailable(written(told_by), str(error), "see the cause") from error

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, ReplyError):
            raise translate(reply, self.name) from reply
        return reply


def _forget(reply: asyncio.Future[Any]) -> None:
    """Whoever waits for it sees its failure; that nobody may wait any more is no news."""
    if not reply.cancelled():
        reply.exception()
