"""New workers in the place of all, one at a time: new settings, a new release, no request lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from gateway.core.error import SettingsError
from gateway.settings.model import Settings
from gateway.telemetry.log import get_logger
from gateway.worker.slot import Slot

# What the parent has from its start: a changed one needs a restart of it all.
_FIXED = ("workers", "server.public", "server.admin", "server.socket")


class Renewal:
    """`settings` are the parent's own; `reread` gives the files', or raises SettingsError."""

    def __init__(
        self, slots: Sequence[Slot], settings: Settings, reread: Callable[[], Settings]
    ) -> None:
        self._slots = slots
        self._settings = settings
        self._reread = reread
        self._is_running = self._again = False
        self._log = get_logger("workers")

    def ask(self) -> bool:
        """True when `run` is to be called; while it runs, it begins once more at its end."""
        self._again = True
        began, self._is_running = self._is_running, True
        return not began

    async def run(self) -> None:
        """Renew them all, as often as was asked for meanwhile."""
        try:
            while self._again:
                self._again = False
                if self._are_good():
                    await self._renew()
        finally:
            self._is_running = False

    async def _renew(self) -> None:
        for slot in self._slots:
            if not await slot.renew():
                return  # what it could not start with would stop the others too
        self._log.info("workers_renewed", workers=len(self._slots))

    def _are_good(self) -> bool:
        """True for files that workers can start with: what could not is not begun with."""
        try:
            found = self._reread()
        except (SettingsError, OSError) as error:
            problems = error.problems if isinstance(error, SettingsError) else [str(error)]
            self._log.error("settings_refused", problems=list(problems))
            return False
        values = attrgetter(*_FIXED)
        pairs = zip(_FIXED, values(found), values(self._settings), strict=True)
        if fixed := [name for name, new, old in pairs if new != old]:
            self._log.warning("restart_needed", settings=fixed)
        return True
