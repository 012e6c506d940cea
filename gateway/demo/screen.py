"""What the demo shows: lines that read without colours, and one bar."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.demo.receiver import Received


class Screen:
    """A console with the jobs' progress below what has happened."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[stage]}"),
            TimeElapsedColumn(),
            console=self.console,
        )

    def heading(self, text: str) -> None:
        """A new act."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def line(self, text: str) -> None:
        """A plain sentence."""
        self.console.print(text, markup=False)

    def start(self) -> None:
        """Show the bars from now on."""
        self._progress.start()

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def job(self, title: str) -> TaskID:
        """A new bar."""
        return self._progress.add_task(title, total=100, stage="")

    def moved(self, bar: TaskID, percentage: float, stage: str) -> None:
        """Move a bar."""
        self._progress.update(bar, completed=percentage, stage=stage)

    def delivery(self, received: Received) -> None:
        """A delivery that landed."""
        mark = "[green]ok[/green]" if received.answer == 200 else f"[red]{received.answer}[/red]"
        signature = "signature verified" if received.verified else "SIGNATURE WRONG"
        progress = "" if received.progress is None else f"{received.progress:.0f} %"
        again = f", attempt {received.attempt}" if received.attempt > 1 else ""
        self.console.print(
            f"  {mark:>3} {received.endpoint:<8}#{received.sequence:<3}{received.event:<18} "
            f"{progress:>5} {received.stage or '':<20} {signature}{again}"
        )

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values."""
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, value in rows:
            table.add_row(name, value)
        self.console.print()
        self.console.print(table)
