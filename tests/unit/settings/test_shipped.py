"""The files that are shipped: good as they stand, in every environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.contract import FIELDS
from gateway.core.job import Observation, State
from gateway.settings.contract import compile_contract
from gateway.settings.load import load, load_policies, policies_directory

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "gateway.yaml"
PROGRESS = {"percentage": 40.0, "current_stage": "Transcribing", "stages_completed": 3}


def observed(document: dict[str, Any], template: str = "") -> Observation:
    return compile_contract(load(CONFIG, {}).jobs).observe(document, 1.0, template=template)


@pytest.mark.parametrize("environment", [None, "development", "production", "demo"])
def test_the_shipped_files_are_good_without_any_secret(environment: str | None) -> None:
    settings = load(CONFIG, {"GATEWAY_ENV": environment} if environment else {})

    load_policies(policies_directory(CONFIG, settings))  # raises when one is wrong
    assert settings.webhooks.secret_key is None
    assert settings.convex.url is None


def test_every_overlay_is_tested_above() -> None:
    names = {path.name for path in (ROOT / "config").glob("*.yaml")}

    assert names == {"development.yaml", "production.yaml", "demo.yaml"}


def test_secrets_and_convex_come_from_the_environment() -> None:
    settings = load(
        CONFIG,
        {
            "WEBHOOK_SECRET_KEY": "s" * 32,
            "CONVEX_URL": "https://x.convex.cloud",
            "CONVEX_DEPLOY_KEY": "prod:x|y",
        },
    )

    assert settings.webhooks.secret_key is not None
    assert settings.webhooks.secret_key.get_secret_value() == "s" * 32
    assert settings.convex.url == "https://x.convex.cloud"
    assert settings.convex.deploy_key is not None


def test_the_missions_settings_have_the_missions_values() -> None:
    settings = load(CONFIG, {})

    assert (settings.api_title, settings.api_version) == ("KlipStream Analysis API", "2.0.0")
    assert settings.debug is False
    assert settings.jobs.admission.max_concurrent == 10
    assert settings.jobs.watch.timeout == 3600.0
    assert load_policies(ROOT / "policies").cache.ttl == 300.0
    assert settings.webhooks.timeout <= 30.0
    assert settings.webhooks.max_retries == 9
    assert settings.metrics.enabled is True
    assert settings.health.interval == 60.0


def test_production_logs_are_json_and_developments_are_not() -> None:
    assert load(CONFIG, {"GATEWAY_ENV": "production"}).log.format == "json"
    assert load(CONFIG, {"GATEWAY_ENV": "development"}).log.format == "console"


def test_the_contract_names_every_field() -> None:
    assert set(load(CONFIG, {}).jobs.fields) == set(FIELDS)


@pytest.mark.parametrize(
    ("document", "state", "percentage"),
    [
        ({"status": "success", "progress": {"current_stage": "Queued"}}, State.QUEUED, None),
        ({"status": "success", "progress": PROGRESS}, State.RUNNING, 40.0),
        ({"status": "Transcribing", "progress": PROGRESS}, State.RUNNING, 40.0),
        ({"status": "success", "progress": {"current_stage": "Completed"}}, State.COMPLETED, None),
        ({"status": "failed", "progress": {"current_stage": "Failed"}}, State.FAILED, None),
        ({"status": "Completed", "progress": 100.0}, State.COMPLETED, 100.0),
        ({"status": "Failed", "progress": 90}, State.FAILED, 90.0),
        ({"status": "Queued", "progress": {"percentage": "5"}}, State.QUEUED, None),
    ],
)
def test_every_shape_of_answer_is_read(
    document: dict[str, Any], state: State, percentage: float | None
) -> None:
    seen = observed({"job_id": "j", **document})

    assert (seen.state, seen.percentage) == (state, percentage)


def test_a_job_made_the_old_way_is_queued_whatever_the_answer_says() -> None:
    assert observed({"job_id": "j", "status": "x"}, "/legacy/run_pipeline").state is State.QUEUED


def test_details_have_their_creation_time_under_metadata() -> None:
    document = {
        "job_id": "j",
        "status": "success",
        "metadata": {"created_at": "1970-01-01T00:00:07"},
    }

    assert observed(document).created_at == 7.0
