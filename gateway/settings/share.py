"""What one of several workers may use: its share of what the settings allow the whole gateway."""

from __future__ import annotations

from gateway.settings.model import Settings


def share(settings: Settings) -> Settings:
    """The settings of one worker.

    A bound is divided and rounded up, so each has one at the least; all else stays as it is.
    """
    workers = settings.workers
    if workers == 1:
        return settings
    server, upstream, watch = settings.server, settings.upstream, settings.jobs.watch
    webhooks, convex, health = settings.webhooks, settings.convex, settings.health

    def part(bound: int) -> int:
        return portion(bound, workers)

    retry = upstream.retry.model_copy(update={"per_second": upstream.retry.per_second / workers})
    watch = watch.model_copy(
        update={
            "max_streams": part(watch.max_streams),
            "max_polls": part(watch.max_polls),
            "max_per_second": watch.max_per_second / workers,
        }
    )
    return settings.model_copy(
        update={
            "server": server.model_copy(update={"max_connections": part(server.max_connections)}),
            "upstream": upstream.model_copy(
                update={
                    "max_connections": part(upstream.max_connections),
                    "max_waiting": part(upstream.max_waiting),
                    "max_streams": part(upstream.max_streams),
                    "retry": retry,
                }
            ),
            "jobs": settings.jobs.model_copy(update={"watch": watch}),
            "webhooks": webhooks.model_copy(
                update={
                    "concurrency": part(webhooks.concurrency),
                    "per_endpoint": part(webhooks.per_endpoint),
                }
            ),
            "convex": convex.model_copy(update={"concurrency": part(convex.concurrency)}),
            "health": health.model_copy(update={"max_memory": part(health.max_memory)}),
        }
    )


def portion(bound: int, workers: int) -> int:
    """One worker's part of a bound, rounded up."""
    return -(-bound // workers)
