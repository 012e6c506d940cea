"""`gateway.yaml`, its overlay and the environment: who wins, and what is said when it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.settings.load import load, policies_directory
from gateway.settings.model import Settings

Load = Callable[..., Settings]
NOT_A_DURATION = "is not a duration; write it like 500ms, 15s, 5m or 1h"
NOT_A_RANGE = "must be a range like 10.0.0.0/8 or fd00::/8"
CONTRACT = """
jobs:
  create: [{path: /jobs}]
  status: {path: "/jobs/{job_id}"}
  fields: {id: id, state: status}
  states: {queued: [new], running: ["*"], completed: [done]}
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def loaded(text: str, environ: Mapping[str, str] | None = None, **overlays: str) -> Settings:
        (tmp_path / "gateway.yaml").write_text(text)
        (tmp_path / "config").mkdir(exist_ok=True)
        for name, overlay in overlays.items():
            (tmp_path / "config" / f"{name}.yaml").write_text(overlay)
        return load(tmp_path / "gateway.yaml", environ or {})

    return loaded


@pytest.fixture
def refused(loaded: Load, tmp_path: Path) -> Callable[..., list[str]]:
    def refused(text: str, environ: Mapping[str, str] | None = None, **overlays: str) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            loaded(text, environ, **overlays)
        return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return refused


Refused = Callable[..., list[str]]


def test_an_empty_file_means_every_default(loaded: Load) -> None:
    assert loaded("") == Settings()


def test_a_section_of_comments_alone_means_its_defaults(loaded: Load) -> None:
    assert loaded("server:\n  # port: 1\nhealth:\nwebhooks: {addresses: }\n") == Settings()


def test_an_optional_section_may_be_null(loaded: Load) -> None:
    assert loaded("jobs: {list: null}\n").jobs.list is None


def test_overlay_goes_over_the_file_and_variables_over_both(loaded: Load) -> None:
    settings = loaded(
        "server: {public: {host: a, port: 1}, admin: {port: 2}}\napi_title: file\n",
        {"GATEWAY_ENV": "production", "GATEWAY__SERVER__PUBLIC__PORT": "3"},
        production="server: {public: {host: b}}\napi_title: overlay\n",
    )

    assert (settings.server.public.host, settings.server.public.port) == ("b", 3)
    assert (settings.server.admin.port, settings.api_title) == (2, "overlay")


def test_an_overlays_list_replaces_the_files(loaded: Load) -> None:
    settings = loaded(
        "webhooks: {addresses: {ports: [1, 2, 3]}}\n",
        {"GATEWAY_ENV": "x"},
        x="webhooks: {addresses: {ports: [9]}}\n",
    )

    assert settings.webhooks.addresses.ports == (9,)


def test_no_environment_reads_no_overlay(loaded: Load) -> None:
    assert loaded("", production="api_title: never\n").api_title != "never"


def test_an_environment_without_overlay_names_the_nearest(refused: Refused) -> None:
    assert refused("", {"GATEWAY_ENV": "prodction"}, production="") == [
        "GATEWAY_ENV: there is no config/prodction.yaml for 'prodction'; did you mean 'production'?"
    ]


@pytest.mark.parametrize("name", ["../secret", "a/b", ".hidden"])
def test_an_environment_cannot_name_a_file_elsewhere(refused: Refused, name: str) -> None:
    assert refused("", {"GATEWAY_ENV": name}) == [
        f"GATEWAY_ENV: {name!r} is not a name like 'production'"
    ]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("DEBUG", "true", lambda settings: settings.debug is True),
        ("HEALTH__INTERVAL", "5", lambda settings: settings.health.interval == 5.0),
        ("HEALTH__INTERVAL", "5m", lambda settings: settings.health.interval == 300.0),
        ("SERVER__MAX_BODY", "2048", lambda settings: settings.server.max_body == 2048),
        ("API_VERSION", "2.0", lambda settings: settings.api_version == "2.0"),
        ("API_TITLE", "a: b #c", lambda settings: settings.api_title == "a: b #c"),
        ("CONVEX__URL", "", lambda settings: settings.convex.url is None),
        (
            "SERVER__TRUSTED_PROXIES",
            '[10.0.0.0/8, "::1"]',
            lambda settings: settings.server.trusted_proxies == ("10.0.0.0/8", "::1"),
        ),
        (
            "HEALTH__DEPENDENCIES__GCS__URL",
            "https://gcs.test",
            lambda settings: settings.health.dependencies["gcs"].url == "https://gcs.test",
        ),
        (
            "WEBHOOKS__SECRET_KEY",
            "12345678",
            lambda settings: settings.webhooks.secret_key.get_secret_value() == "12345678",
        ),
    ],
)
def test_a_variable_means_what_its_setting_takes(
    loaded: Load, name: str, text: str, found: Callable[[Settings], bool]
) -> None:
    assert found(loaded("", {f"GATEWAY__{name}": text}))


def test_other_variables_are_not_settings(loaded: Load) -> None:
    # Kubernetes makes such variables for a service named gateway.
    assert loaded("", {"GATEWAY_PORT": "tcp://10.0.0.1:80", "PATH": "/bin"}) == Settings()


def test_a_variable_that_is_wrong_is_named(refused: Refused) -> None:
    environ = {
        "GATEWAY__UPSTREM__URL": "http://x",
        "GATEWAY__SERVER__PUBLIC__PORT": "http",
        "GATEWAY__DEBUG__X": "1",
    }

    assert refused("debug: true\n", environ) == [
        "environment GATEWAY__DEBUG__X: debug: must be true or false",
        "environment GATEWAY__SERVER__PUBLIC__PORT: server.public.port: must be a whole number",
        "environment GATEWAY__UPSTREM__URL: upstrem: unknown key; did you mean 'upstream'?",
    ]


def test_a_reference_takes_the_variable_or_its_default(loaded: Load) -> None:
    text = (
        "api_title: ${TITLE:-A title}\nupstream: {url: '${UPSTREAM:-http://a}'}\n"
        "server: {public: {port: '${PORT:-8000}'}}\nhealth: {interval: '${EVERY:-5}'}\n"
        "webhooks: {secret_key: '${SECRET:-}'}\nconvex: {url: '${EMPTY:-}'}\n"
    )

    settings = loaded(text, {"UPSTREAM": "http://b", "SECRET": "s", "EMPTY": ""})

    assert (settings.api_title, settings.upstream.url) == ("A title", "http://b")
    assert (settings.server.public.port, settings.health.interval) == (8000, 5.0)
    assert settings.convex.url is None
    assert settings.webhooks.secret_key is not None
    assert settings.webhooks.secret_key.get_secret_value() == "s"


def test_a_reference_to_nothing_is_one_problem_with_its_line(refused: Refused) -> None:
    assert refused("debug: false\nupstream:\n  url: ${NOPE}\n") == [
        "gateway.yaml:3: upstream.url: the variable NOPE is not set; ${NOPE:-} lets it be absent"
    ]


def test_a_variable_that_is_no_list_is_named_where_it_is_referred_to(refused: Refused) -> None:
    [found] = refused("\nserver: {trusted_proxies: '${P}'}\n", {"P": "[10.0.0.0/8"})

    assert found.startswith("gateway.yaml:2: server.trusted_proxies: the variable P: ")


def test_a_reference_is_a_whole_value(refused: Refused) -> None:
    assert refused("upstream: {url: 'http://${HOST}:80'}\n", {"HOST": "h"}) == [
        "gateway.yaml:1: upstream.url: a reference ${NAME} must be the whole value"
    ]


def test_a_secret_is_read_from_its_file(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "deploy").write_text("prod:x|abc\n")
    text = (
        f"convex: {{deploy_key: 'file:{tmp_path}/deploy'}}\nwebhooks: {{secret_key: file:deploy}}"
    )

    settings = loaded(text)

    assert settings.convex.deploy_key is not None
    assert settings.convex.deploy_key.get_secret_value() == "prod:x|abc"
    assert settings.webhooks.secret_key == settings.convex.deploy_key


def test_a_secret_never_stands_in_a_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    found = refused(
        "webhooks: {secret_key: hunter2}\n"
        "convex:\n  deploy_key: ${K:-hunter2}\n"
        "upstream: {url: http://u}\n"
    )

    assert found == [
        "gateway.yaml:1: webhooks.secret_key: is a secret; write ${NAME} or file:/path instead",
        "gateway.yaml:3: convex.deploy_key: is a secret; leave its default empty: ${NAME:-}",
    ]
    assert refused("webhooks: {secret_key: file:empty}\n")[0].endswith("is empty or too large")
    assert refused("webhooks: {secret_key: file:none}\n")[0].endswith("No such file or directory")


def test_no_problem_and_no_settings_text_shows_a_secret(loaded: Load, refused: Refused) -> None:
    text = "webhooks: {secret_key: '${S}'}\n"

    assert "hunter2" not in repr(loaded(text, {"S": "hunter2"}))
    assert "hunter2" not in "".join(refused(text, {"S": "whsec_hunter2"}))


def test_every_problem_is_reported_at_once_with_its_line(refused: Refused) -> None:
    text = """\
webhooks:
  timout: 3s
  timeout: 40s
  retry_delays: [1x]
jobs:
  create: [{pth: /x}, {path: "/y/{job_id}", methods: [post]}]
  list: {path: x}
  fields: {sate: a, id: '[['}
  states: {runing: [a], queued: [b]}
debug: 3
log: {level: infos}
policies: [a]
server: {trusted_proxies: [10.0.0.1/8]}
"""

    assert refused(text) == [
        "gateway.yaml:2: webhooks.timout: unknown key; did you mean 'timeout'?",
        "gateway.yaml:3: webhooks.timeout: must be at most 30",
        f"gateway.yaml:4: webhooks.retry_delays[0]: '1x' {NOT_A_DURATION}",
        "gateway.yaml:6: jobs.create[0].path: is required",
        "gateway.yaml:6: jobs.create[0].pth: unknown key; did you mean 'path'?",
        "gateway.yaml:7: jobs.list.path: must be a path like /api/v1/jobs, without a query",
        "gateway.yaml:8: jobs.fields.sate: unknown field; did you mean 'state'?",
        "gateway.yaml:8: jobs.fields.id: is not a JMESPath expression: Incomplete expression",
        "gateway.yaml:9: jobs.states.runing: unknown state; did you mean 'running'?",
        "gateway.yaml:10: debug: must be true or false",
        "gateway.yaml:11: log.level: must be 'debug', 'info', 'warning' or 'error'",
        "gateway.yaml:12: policies: must be a mapping (key: value)",
        f"gateway.yaml:13: server.trusted_proxies[0]: {NOT_A_RANGE}: its host bits are set",
    ]


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ("{hosts: ['https://a.example']}", "server.hosts[0]: must be a name like"),
        ("{hosts: [a.example, 'a.example:80']}", "server.hosts[1]: must be a name like"),
        ("{hosts: ['a.*.example']}", "server.hosts[0]: must be a name like"),
        ("{tls: {certificate: /none.pem, key: /none.key}}", "server.tls.certificate: names /none"),
        ("{further_methods: [purge]}", "server.further_methods[0]: is not a method"),
        ("{further_methods: [A, TRACE]}", "server.further_methods[1]: is never passed"),
    ],
)
def test_the_listener_is_checked(refused: Refused, server: str, problem: str) -> None:
    assert refused(f"server: {server}\n")[0].startswith(f"gateway.yaml:1: {problem}")


def test_problems_of_file_and_overlay_come_together(refused: Refused) -> None:
    assert len(refused("a: 1\na: 2\n", {"GATEWAY_ENV": "x"}, x="b: &y 1\n")) == 2


def test_a_problem_in_an_overlay_names_the_overlay(refused: Refused) -> None:
    assert refused("debug: false\n", {"GATEWAY_ENV": "x"}, x="\ndebug: maybe\n") == [
        "config/x.yaml:2: debug: must be true or false"
    ]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("  status: {path: /jobs}", "jobs.status.path: must hold the placeholder {job_id} once"),
        ("  status: {path: '/jobs/{id}'}", "jobs.status.path: must hold the placeholder {job_id}"),
        ("  cancel: {path: '/{job_id}/{job_id}'}", "jobs.cancel.path: must hold the placeholder"),
        ("  stream: {path: '/{job_id}', methods: []}", "jobs.stream.methods: must name at least"),
        ("  details: {path: '/{job_id}', methods: [get]}", "jobs.details.methods[0]: is not a"),
        ("  list: {path: '/j/{job_id}'}", "jobs.list.path: must hold no placeholder"),
        ("  list: {path: /j, items: 'jobs['}", "jobs.list.items: is not a JMESPath expression"),
        ("  create: [{path: /j, fields: {state: 'x['}}]", "jobs.create[0].fields.state: is not a"),
        ("  states: {queued: [a], failed: [a]}", "jobs.states.failed[0]: 'a' means queued already"),
        ("  watch: {poll: {min: 9s, max: 3s}}", "jobs.watch.poll.min: must not be longer"),
        ("  watch: {vanished: lost}", "jobs.watch.vanished: must be 'failed' or 'cancelled'"),
        ("  admission: {max_concurrent: 0}", "jobs.admission.max_concurrent: must be at least 1"),
    ],
)
def test_a_job_contract_that_cannot_work_is_refused(
    refused: Refused, extra: str, problem: str
) -> None:
    name = extra.partition(":")[0]
    kept = "\n".join(line for line in CONTRACT.splitlines() if not line.startswith(name + ":"))

    assert problem in refused(f"{kept}\n{extra}\n")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: {create: [{path: /j}], fields: {id: a, state: b}}", "status is required"),
        ('jobs: {status: {path: "/{job_id}"}, fields: {id: a}}', "state is required"),
        ("jobs: {list: {path: /j}, fields: {state: a}}", "status is required"),
    ],
)
def test_a_contract_must_say_how_a_job_is_followed(refused: Refused, text: str, said: str) -> None:
    assert any(said in problem for problem in refused(text))


def test_a_plain_proxy_needs_no_contract(loaded: Load) -> None:
    assert loaded("jobs: {watch: {timeout: 2h}}\n").jobs.status is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("upstream: {url: ftp://x}", "upstream.url: must be a URL like"),
        ("upstream: {url: 127.0.0.1:80}", "upstream.url: must be a URL like"),
        ("upstream: {url: 'http://h:99999'}", "upstream.url: must be a URL like"),
        ("upstream: {url: 'http://u:p@h'}", "upstream.url: must not carry a user name"),
        ("upstream: {url: 'http://h?x=1'}", "upstream.url: must not have a query"),
        ("upstream: {health_path: health}", "upstream.health_path: must begin with /"),
        ("upstream: {admin: [{path: x}]}", "upstream.admin[0].path: must begin with /"),
        ("upstream: {admin: [{path: /x, methods: [ge]}]}", "upstream.admin[0].methods[0]: is not"),
        ("convex: {url: convex.cloud}", "convex.url: must be a URL like"),
        ("convex: {functions: {history: jobs}}", "convex.functions.history: must be a function"),
        ("health: {dependencies: {gcs: {url: x}}}", "health.dependencies.gcs.url: must be a URL"),
        ("health: {critical: [gcs]}", "health.critical[0]: must be 'upstream',"),
        ("health: {dependencies: {redis: {url: http://h}}}", "health.dependencies.redis: redis is"),
        ("health: {max_cpu: 90}", "health.max_cpu: must be at most 1"),
        ("server: {public: {port: 1}, admin: {port: 1}}", "server.admin.port: must differ"),
        ("webhooks: {addresses: {allow: [localhost]}}", "webhooks.addresses.allow[0]: must be a"),
        ("webhooks: {max_retries: 4, retry_delays: [1s]}", "webhooks.max_retries: must not exceed"),
        ("webhooks: {timeout: 31s}", "webhooks.timeout: must be at most 30"),
        ("webhooks: {timeout: 0s}", "webhooks.timeout: must be more than 0"),
        ("server: {max_body: 1MB}", "server.max_body: '1MB' is not a size"),
        ("health: {interval: .inf}", "health.interval: '.inf' is not a duration"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(
    refused: Refused, text: str, problem: str
) -> None:
    [found] = refused(text)
    assert found.startswith(f"gateway.yaml:1: {problem}")


def test_both_listeners_may_take_free_ports(loaded: Load) -> None:
    assert loaded("server: {public: {port: 0}, admin: {port: 0}}\n").server.admin.port == 0


def test_policies_stand_beside_the_settings_file(tmp_path: Path) -> None:
    assert policies_directory(tmp_path / "gateway.yaml", Settings()) == tmp_path / "policies"
