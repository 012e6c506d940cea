"""The layout of the gateway's own store, whichever the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gateway.settings.model import Settings
from gateway.store.sqlite.layout import SqliteLayout


class Layout(Protocol):
    """Numbered steps of one store. Every method raises SettingsError when it cannot be used."""

    @property
    def where(self) -> str:
        """What is migrated, for people."""
        ...

    @property
    def newest(self) -> int:
        """The number of this release's last step."""
        ...

    def stands_at(self) -> int:
        """The number of the last step applied. Changes nothing."""
        ...

    def up(self) -> str | None:
        """Apply what is missing; what changed and what was kept, None when nothing was missing."""
        ...

    def down(self) -> str:
        """Undo the last step; what changed and what was kept."""
        ...


def layout_of(settings: Settings) -> Layout:
    """The layout of the store that the settings name."""
    return SqliteLayout(Path(settings.store.sqlite.path))
