"""Every worker is renewed, one at a time; never with settings that none could start with."""

from __future__ import annotations

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gateway.core.error import SettingsError
from gateway.settings.model import Settings
from gateway.worker.renewal import Renewal


class FakeSlot:
    def __init__(self, done: list[int], number: int, *, succeeds: bool = True) -> None:
        self._done = done
        self._number = number
        self._succeeds = succeeds

    async def renew(self) -> bool:
        self._done.append(self._number)
        return self._succeeds


def renewal(
    found: Settings | Exception, settings: Settings | None = None, fails: int | None = None
) -> tuple[Renewal, list[int]]:
    done: list[int] = []
    slots = [FakeSlot(done, number, succeeds=number != fails) for number in range(3)]

    def reread() -> Settings:
        if isinstance(found, Exception):
            raise found
        return found

    made = Renewal(cast("Any", slots), settings or Settings(workers=3), reread)
    assert made.ask()
    return made, done


async def test_all_are_renewed_in_their_order() -> None:
    made, done = renewal(Settings(workers=3))

    await made.run()

    assert done == [0, 1, 2]


async def test_one_that_fails_spares_the_others() -> None:
    made, done = renewal(Settings(workers=3), fails=1)

    await made.run()

    assert done == [0, 1]


@pytest.mark.parametrize(
    "error", [SettingsError(["a.yaml:1: x: is unknown"]), PermissionError("a.yaml: denied")]
)
async def test_bad_files_renew_nobody_and_are_said(error: Exception) -> None:
    made, done = renewal(error)

    with capture_logs() as lines:
        await made.run()

    assert done == []
    assert [(each["event"], len(each["problems"])) for each in lines] == [("settings_refused", 1)]


async def test_asked_for_again_meanwhile_it_begins_once_more() -> None:
    made, done = renewal(Settings(workers=3))
    assert not made.ask()
    running = made.run()

    await running
    assert done == [0, 1, 2]  # both were before it began
    assert made.ask()
    await made.run()
    assert done == [0, 1, 2] * 2


async def test_what_only_a_restart_changes_is_said() -> None:
    found = Settings.model_validate({"workers": 4, "server": {"public": {"port": 8081}}})
    made, done = renewal(found)

    with capture_logs() as lines:
        await made.run()

    assert done == [0, 1, 2]
    (said,) = [each for each in lines if each["event"] == "restart_needed"]
    assert said["settings"] == ["workers", "server.public"]
