"""docs/mission.md: nothing of the mission is missing there, and nothing that it names here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from gateway.core.job import EventType
from gateway.delivery.convex import ConvexClient
from gateway.settings.load import load
from tests.docs.definition import definitions
from tests.docs.markdown import ROOT, Table, codes, tables
from tests.docs.setting import settings
from tests.support.receiver import Receiver
from tests.support.system import FAILING_VIDEO, GatewayProcess

PAGE = (ROOT / "docs" / "mission.md").read_text()
TABLES: Mapping[str, Table] = {table.heading: table for table in tables(PAGE)}
NOT_YET = "not yet"
IMPORTABLE = re.compile(r"(?:gateway|policies|config|convex|tests|docs)/[\w./-]+|Dockerfile")

# The mission's own words, by the heading they stand under; a comma between two.
NAMED: Mapping[str, str] = {
    "Settings": "api_title, api_version, debug, max_concurrent_jobs, job_timeout_seconds, "
    "cache_ttl_seconds, webhook_timeout_seconds, webhook_max_retries, webhook_secret_key, "
    "metrics_enabled, health_check_interval",
    "Webhook events": "job.started, job.progress, job.completed, job.failed, job.cancelled",
    "Endpoints": "POST /api/v1/webhooks, GET /api/v1/webhooks, "
    "PUT /api/v1/webhooks/{webhook_id}, DELETE /api/v1/webhooks/{webhook_id}, "
    "GET /api/v1/webhooks/{webhook_id}/logs, POST /api/v1/webhooks/{webhook_id}/test",
    "Convex schema": "currentStage, progressPercentage, estimatedCompletionSeconds, "
    "estimatedCompletionTime, stagesCompleted, totalStages, jobId, processingStartedAt, "
    "processingCompletedAt, lastProgressUpdate, errorType, errorCode, isRetryable, retryCount, "
    "supportReference, webhookUrls, webhookEvents",
    "Convex client": "update_job_progress_detailed(), track_job_analytics(), "
    "store_webhook_config(), get_job_history()",
    "Metrics": "job_processing_time, api_response_time, pipeline_stage_duration, "
    "jobs_created_total, jobs_completed_total, jobs_failed_total, active_connections, "
    "memory_usage, cpu_usage",
}
# Headings whose rows are sentences: how many the mission lists.
COUNTED: Mapping[str, int] = {
    "The gateway itself": 8,
    "Webhook service": 6,
    "Webhook security": 4,
    "Database migration": 4,
    "Caching": 4,
    "Health checks": 5,
    "Rate limiting": 4,
    "Logging": 5,
    "Security": 5,
    "Webhook tests": 5,
    "Performance tests": 5,
    "Integration tests": 5,
    "Outcomes": 5,
}
ROWS = [(heading, row) for heading, table in TABLES.items() for row in table.rows]


def named(row: Mapping[str, str], column: str) -> list[str]:
    return codes(row[column])


def test_every_heading_of_the_mission_is_there() -> None:
    assert set(TABLES) == set(NAMED) | set(COUNTED)


@pytest.mark.parametrize("heading", NAMED)
def test_every_name_of_the_mission_has_a_row(heading: str) -> None:
    assert [named(row, "asked for")[0] for row in TABLES[heading].rows] == NAMED[heading].split(
        ", "
    )


@pytest.mark.parametrize("heading", COUNTED)
def test_every_item_of_the_mission_has_a_row(heading: str) -> None:
    assert len(TABLES[heading].rows) == COUNTED[heading]


@pytest.mark.parametrize(("heading", "row"), ROWS)
def test_row_names_its_tests_or_says_not_yet(heading: str, row: Mapping[str, str]) -> None:
    tests = [span for span in named(row, "held by") if span.startswith("tests/")]

    assert bool(tests) != row["held by"].startswith(NOT_YET)
    for span in tests:
        file, _, name = span.partition("::")
        assert name in definitions(file), span


@pytest.mark.parametrize(("heading", "row"), ROWS)
def test_every_file_that_a_row_names_exists(heading: str, row: Mapping[str, str]) -> None:
    spans = [span.partition("::")[0] for cell in row.values() for span in codes(cell)]
    missing = [path for path in spans if IMPORTABLE.fullmatch(path) and not (ROOT / path).is_file()]

    assert missing == []


@pytest.mark.parametrize("row", TABLES["Settings"].rows)
def test_every_setting_is_one(row: Mapping[str, str]) -> None:
    (file,), (path,) = named(row, "file"), named(row, "setting")
    (found,) = [each for each in settings() if (each.file, each.path) == (file, path)]

    if row["used in"] != NOT_YET:
        (module,) = named(row, "used in")
        assert found.path.rpartition(".")[2] in (ROOT / module).read_text()


@pytest.mark.parametrize("row", TABLES["Webhook events"].rows)
def test_every_event_is_one(row: Mapping[str, str]) -> None:
    assert EventType(named(row, "asked for")[0])


@pytest.mark.parametrize("row", TABLES["Convex client"].rows)
def test_every_client_method_is_one(row: Mapping[str, str]) -> None:
    assert callable(getattr(ConvexClient, named(row, "asked for")[0].removesuffix("()")))


@pytest.mark.parametrize("row", TABLES["Convex schema"].rows)
def test_every_convex_field_is_in_the_schema(row: Mapping[str, str]) -> None:
    (field,), (kind,) = named(row, "asked for"), named(row, "type")
    groups = dict(
        re.findall(
            r"^export const (\w+) = \{\n(.*?)^\};",
            (ROOT / "convex" / "fields.ts").read_text(),
            re.MULTILINE | re.DOTALL,
        )
    )
    schema = (ROOT / "convex" / "schema.ts").read_text()

    assert "videos: defineTable(videoFields)" in schema
    assert "  ...progressFields,\n" in groups["videoFields"]
    videos = groups["videoFields"] + groups["progressFields"]
    assert f"  {field}: v.optional({kind}),\n" in videos


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_moves_with_the_jobs_it_counts(gateway: GatewayProcess) -> None:
    for job in [await gateway.create(), await gateway.create(FAILING_VIDEO)]:
        await gateway.finish(job)

    values = await gateway.metrics()
    series = [name for row in TABLES["Metrics"].rows for name in named(row, "series")]
    still = [name for name in series if not values.get(name) and not values.get(f"{name}_count")]

    assert still == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", TABLES["Endpoints"].rows)
async def test_every_endpoint_answers(
    gateway: GatewayProcess, receiver: Receiver, row: Mapping[str, str]
) -> None:
    method, path = named(row, "asked for")[0].split()
    webhook = await gateway.register(receiver.url)
    takes_url = method == "PUT" or (method == "POST" and path.endswith("/webhooks"))
    document = {"url": receiver.url} if takes_url else None

    answer = await gateway.request(method, path.format(webhook_id=webhook["id"]), document)

    assert 200 <= answer.status < 300, answer.body
    await gateway.remove_webhooks()


@pytest.mark.asyncio(loop_scope="module")
async def test_every_health_check_is_a_component(gateway: GatewayProcess) -> None:
    shown = set((await gateway.health())["components"])
    production = load(ROOT / "gateway.yaml", {"GATEWAY_ENV": "production"}).health.dependencies
    components = {name for row in TABLES["Health checks"].rows for name in named(row, "component")}

    assert components <= shown | set(production)
