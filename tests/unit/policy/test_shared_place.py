"""Places that replicas share: whose they are, and what is done while their store is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from gateway.core.admission import Bound, Bounds
from gateway.core.error import StoreUnavailable
from gateway.core.job import Job, JobChange, State
from gateway.policy.place import Applicant, LocalPlaces
from gateway.policy.shared_place import Leases, SharedPlaces
from gateway.store.place import Place
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock
from tests.support.policy import sample
from tests.support.store import NOW, new_job, next_change

ALICE = Applicant("r1", "alice", "ci")
BOB = Applicant("r2", "bob", None)
GROUPS = ("all", "owner:alice", "key:ci")


class Store:
    """Places in memory, without leases; away on demand."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, ...]] = {}
        self.is_away = False
        self.stall: asyncio.Event | None = None
        self.renewals = 0

    def check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store does not answer")

    async def take(
        self, name: str, bounds: Sequence[Bound], lease_seconds: float, *, anyway: bool
    ) -> int | None:
        self.check()
        reached = [i for i, bound in enumerate(bounds) if self._count(bound) >= bound.limit]
        full = reached[0] if reached else None
        if full is None or anyway:
            self.held[name] = tuple(bound.group for bound in bounds)
        if self.stall is not None:
            await self.stall.wait()
        return full

    async def pass_on(self, name: str, place: Place, lease_seconds: float) -> None:
        self.check()
        self.held.pop(name, None)
        self.held[place.name] = place.groups

    async def keep(self, places: Sequence[Place], lease_seconds: float) -> None:
        self.check()
        self.renewals += 1
        self.held |= {place.name: place.groups for place in places}

    async def free(self, place: Place) -> None:
        self.check()
        self.held.pop(place.name, None)

    def _count(self, bound: Bound) -> int:
        return sum(bound.group in groups for groups in self.held.values())


class Jobs:
    """The active jobs of one replica."""

    durations: Sequence[float] = ()

    def __init__(self) -> None:
        self.active_jobs: list[Job] = []

    @property
    def active_count(self) -> int:
        return len(self.active_jobs)


class Replica:
    """One replica's places."""

    def __init__(self, store: Store, metrics: Metrics, clock: FakeClock, **given: Any) -> None:
        self.jobs = Jobs()
        local = LocalPlaces(given.pop("bounds", Bounds(2, 2, 2)), self.jobs)
        tokens = (f"{id(self)}-{number}" for number in range(100))
        self.places = SharedPlaces(
            store,
            local,
            self.jobs,
            leases=Leases(creation=130.0, job=30.0),
            on_store_error=given.pop("on_store_error", "local"),
            metrics=metrics,
            now=clock,
            token=lambda: next(tokens),
        )

    async def take(self, applicant: Applicant = ALICE, *, anyway: bool = False) -> Bound | None:
        return await self.places.take(applicant, anyway=anyway)

    async def begin(self, job_id: str = "j1", applicant: Applicant = ALICE) -> JobChange:
        """Its creation becomes a job."""
        change = new_job(
            job_id, owner=applicant.owner, request_id=applicant.request_id, key=applicant.key
        )
        self.jobs.active_jobs.append(change.job)
        await self.places.noted(change)
        return change


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def one(store: Store, metrics: Metrics, clock: FakeClock) -> Replica:
    return Replica(store, metrics, clock)


@pytest.fixture
def two(store: Store, metrics: Metrics, clock: FakeClock) -> Replica:
    return Replica(store, metrics, clock)


async def test_what_one_replica_took_the_other_has_not(one: Replica, two: Replica) -> None:
    assert await one.take() is None
    assert await two.take() is None

    full = await two.take()
    assert full == Bound("all", 2)
    await one.places.leave(ALICE)
    assert await two.take() is None


async def test_a_place_passes_from_its_creation_to_its_job_and_goes_with_it(
    one: Replica, store: Store
) -> None:
    await one.take()
    change = await one.begin()
    assert store.held == {"job:j1": GROUPS}

    await one.places.leave(ALICE)
    assert store.held == {"job:j1": GROUPS}
    await one.places.noted(next_change(change.job, NOW + 1, state=State.COMPLETED))
    assert store.held == {}


async def test_a_job_whose_first_sight_is_its_end_keeps_no_place(
    one: Replica, store: Store
) -> None:
    await one.take()
    change = new_job("j1", state=State.FAILED, owner="alice", request_id="r1", key="ci")
    await one.places.noted(change)

    assert store.held == {}
    await one.places.leave(ALICE)


async def test_an_adopted_job_has_a_place_too(one: Replica, store: Store) -> None:
    await one.places.noted(new_job("stranger", owner="unknown"))

    assert store.held == {"job:stranger": ("all", "owner:unknown")}


async def test_a_job_that_ended_elsewhere_is_held_no_more_here(one: Replica, store: Store) -> None:
    change = await one.begin()
    one.jobs.active_jobs.clear()
    end = next_change(change.job, NOW + 1, state=State.CANCELLED)

    await one.places.noted_elsewhere(change)
    assert "job:j1" in store.held
    await one.places.noted_elsewhere(end)
    assert store.held == {}


async def test_a_shadow_takes_a_place_where_there_is_none(one: Replica, store: Store) -> None:
    for _ in range(2):
        await one.take()

    assert await one.take(anyway=True) == Bound("all", 2)
    assert len(store.held) == 3


async def test_a_creation_cancelled_while_it_asks_leaves_nothing(
    one: Replica, store: Store
) -> None:
    store.stall = asyncio.Event()
    task = asyncio.create_task(one.take())
    while not store.held:  # noqa: ASYNC110 - until the store has it
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert store.held == {}


async def test_jobs_are_held_before_a_place_is_taken_after_a_pause(
    one: Replica, store: Store, clock: FakeClock
) -> None:
    for number in range(2):
        await one.begin(f"j{number}", BOB)
    assert await one.take() == Bound("all", 2)
    store.held.clear()  # their leases ended while the process stood still
    clock.at += 60.0

    assert await one.take() == Bound("all", 2)


async def test_while_held_they_are_not_renewed_at_every_creation(
    one: Replica, store: Store, clock: FakeClock
) -> None:
    await one.take()
    clock.at += 10.0
    await one.take(BOB)

    assert store.renewals == 1


async def test_places_are_renewed_in_the_background(one: Replica, store: Store) -> None:
    await one.begin("j1")
    store.held.clear()
    task = asyncio.create_task(one.places.run())
    while "job:j1" not in store.held:  # noqa: ASYNC110 - until it has had its turn
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class TestWhileTheStoreIsAway:
    """What each `on_store_error` does."""

    async def test_local_counts_what_the_replica_knows(
        self, one: Replica, store: Store, metrics: Metrics
    ) -> None:
        await one.begin("j1", BOB)
        store.is_away = True
        with structlog.testing.capture_logs() as lines:
            assert await one.take() is None
            assert await one.take() == Bound("all", 2)

        assert [line["event"] for line in lines] == ["places_away"]
        assert sample(metrics, "store_errors_total", store="places") == 2

    async def test_allow_takes_all(self, store: Store, metrics: Metrics, clock: FakeClock) -> None:
        one = Replica(store, metrics, clock, on_store_error="allow")
        store.is_away = True

        assert [await one.take() for _ in range(4)] == [None] * 4

    async def test_deny_takes_none(self, store: Store, metrics: Metrics, clock: FakeClock) -> None:
        one = Replica(store, metrics, clock, on_store_error="deny")
        store.is_away = True

        with pytest.raises(StoreUnavailable):
            await one.take()
        assert await one.take(anyway=True) is None  # a shadow blocks nobody

    async def test_what_was_created_meanwhile_counts_once_it_is_back(
        self, one: Replica, two: Replica, store: Store
    ) -> None:
        store.is_away = True
        for number in range(2):
            await one.take(BOB)
            await one.begin(f"j{number}", BOB)
            await one.places.leave(BOB)
        store.is_away = False
        with structlog.testing.capture_logs() as lines:
            assert await one.take() == Bound("all", 2)

        assert [line["event"] for line in lines] == ["places_back"]
        assert await two.take() == Bound("all", 2)

    async def test_nothing_fails_that_is_told_meanwhile(self, one: Replica, store: Store) -> None:
        await one.take()
        store.is_away = True
        change = await one.begin()
        await one.places.leave(ALICE)
        await one.places.noted(next_change(change.job, NOW + 1, state=State.COMPLETED))
        await one.places.noted_elsewhere(next_change(change.job, NOW + 1, state=State.COMPLETED))
