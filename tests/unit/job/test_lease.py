"""Claims are kept many at once, in time, and given back once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from gateway.core.error import StoreUnavailable
from gateway.core.job import Job
from gateway.core.outbox import Claim
from gateway.job.lease import BATCH, Leases
from tests.support.job import NOW
from tests.support.skipping import run
from tests.unit.job.test_poller import job


class Store:
    """Renews all but what is lost; keeps a record."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.renewed: list[tuple[float, list[str]]] = []
        self.released: list[str] = []
        self.lost: set[str] = set()
        self.down = False
        self.told_lost: list[str] = []
        self.leases = Leases(
            self,  # type: ignore[arg-type]
            lease_seconds=30,
            lost=lambda claim: self.told_lost.append(claim.item.id),
            now=lambda: NOW + self.loop.time(),
        )

    async def renew(self, claims: Sequence[Claim[object]], lease_until: float) -> Collection[str]:
        if self.down:
            raise StoreUnavailable("The store is away.")
        assert lease_until == NOW + self.loop.time() + 30
        ids = [claim.item.id for claim in claims]  # type: ignore[attr-defined]
        self.renewed.append((self.loop.time() - 1000, ids))
        return set(ids) - self.lost

    async def release(self, claim: Claim[object], due_at: float) -> bool:
        if self.down:
            raise StoreUnavailable("The store is away.")
        self.released.append(claim.item.id)  # type: ignore[attr-defined]
        return True

    def hold(self, count: int) -> None:
        for number in range(count):
            self.leases.hold(Claim(job(f"j{number}"), 1, NOW + 30))

    async def keep(self, seconds: float) -> None:
        task = asyncio.create_task(self.leases.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_every_claim_is_renewed_twice_before_its_lease_ends_in_large_batches() -> None:
    async def work() -> Store:
        store = Store()
        store.hold(2 * BATCH + 1)
        await store.keep(29)
        return store

    store = run(work())
    assert [len(ids) for _, ids in store.renewed] == [BATCH, BATCH, 1] * 2
    assert all(at <= 13 for at, _ in store.renewed[:3])


def test_claim_that_was_lost_is_told_of_once_and_renewed_no_more() -> None:
    async def work() -> Store:
        store = Store()
        store.hold(3)
        store.lost = {"j1"}
        await store.keep(60)
        await store.leases.release_all(NOW)
        return store

    store = run(work())
    assert store.told_lost == ["j1"]
    assert sum("j1" in ids for _, ids in store.renewed) == 1
    assert store.released == ["j0", "j2"]


def test_store_that_is_away_is_asked_again_within_the_lease() -> None:
    async def work() -> Store:
        store = Store()
        store.hold(3)
        store.down = True
        keeping = asyncio.create_task(store.keep(29))
        await asyncio.sleep(15)
        store.down = False
        await keeping
        return store

    store = run(work())
    assert store.renewed
    assert not store.told_lost


def test_claim_given_back_is_not_renewed_and_not_given_back_again() -> None:
    async def work() -> Store:
        store = Store()
        store.hold(2)
        await store.leases.release("j0", NOW)
        await store.leases.release("j0", NOW)
        store.down = True
        await store.leases.release("j1", NOW)
        store.down = False
        await store.keep(30)
        return store

    store = run(work())
    assert store.released == ["j0"]
    assert not store.renewed


def test_newer_claim_takes_the_place_of_the_one_that_is_being_renewed() -> None:
    """What comes of the older one then says nothing of it."""

    async def work() -> tuple[Store, Claim[Job]]:
        store = Store()
        store.hold(1)
        newer = Claim(job("j0"), 2, NOW + 60)
        renew = store.renew

        async def replaced(claims: Sequence[Claim[object]], lease_until: float) -> Collection[str]:
            store.leases.hold(newer)
            store.lost = {"j0"}
            return await renew(claims, lease_until)

        store.renew = replaced  # type: ignore[method-assign]
        await store.keep(12)
        return store, newer

    store, newer = run(work())
    assert store.told_lost == []
    assert store.leases._held["j0"][1] is newer
