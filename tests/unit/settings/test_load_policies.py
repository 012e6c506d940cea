"""Policy files: read all or nothing, every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.settings.load import load_policies
from gateway.settings.policy import PolicySet

HASH = "a" * 64


def refused(directory: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_policies(directory)
    return [problem.replace(f"{directory}/", "") for problem in caught.value.problems]


def test_files_that_are_not_there_mean_defaults(tmp_path: Path) -> None:
    assert load_policies(tmp_path) == PolicySet()


def test_every_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "auth.yaml").write_text(
        f"entries: [{{id: a, hash: 'sha256:{HASH}', owner: o, expires: 2027-01-31T00:00:00Z, "
        "scopes: [my:scope]}]\n"
        "scopes: {job-create: [jobs:write], other: [my:scope, admin]}\nmode: shadow\n"
    )
    (tmp_path / "cache.yaml").write_text("ttl: 1m\nttl_by_state: {running: 1s}\n")
    (tmp_path / "rate_limits.yaml").write_text(
        "limits: {a: {limit: 10, window: 60s, by: [ip, key], routes: [job-create]}}\n"
    )
    (tmp_path / "security_headers.yaml").write_text(
        "headers: {X-Frame-Options: null, X-Own: 'a b'}\n"
    )

    policies = load_policies(tmp_path)

    assert policies.auth.mode == "shadow"
    assert policies.auth.entries[0].expires == "2027-01-31T00:00:00Z"
    assert policies.cache.ttl_by_state == {"running": 1.0}
    assert policies.rate_limits.limits["a"].window == 60.0
    assert policies.security_headers.headers == {"X-Frame-Options": None, "X-Own": "a b"}


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none: is not a directory; policies\.directory"):
        load_policies(tmp_path / "none")


def test_a_mounted_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "cache.yaml").write_text("ttl: 7s\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "cache.yaml").symlink_to("..data/cache.yaml")
    (tmp_path / "README.md").touch()

    assert load_policies(tmp_path).cache.ttl == 7.0


@pytest.mark.parametrize(
    ("name", "near"),
    [("rate_limit.yaml", "rate_limits.yaml"), ("auth.yml", "auth.yaml")],
)
def test_an_unknown_file_is_a_problem(tmp_path: Path, name: str, near: str) -> None:
    (tmp_path / name).touch()

    assert refused(tmp_path) == [f"{name}: unknown policy file; did you mean {near!r}?"]


def test_problems_of_every_file_come_together(tmp_path: Path) -> None:
    (tmp_path / "auth.yaml").write_text("mode: off\nentrys: []\n")
    (tmp_path / "cache.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "rate_limits.yaml").write_text("limits:\n  x: {limit: 0, window: 60s}\n")

    assert refused(tmp_path) == [
        "auth.yaml:1: mode: must be 'enforce' or 'shadow'",
        "auth.yaml:2: entrys: unknown key; did you mean 'entries'?",
        "cache.yaml:2: a: is there twice, first in line 1",
        "rate_limits.yaml:2: limits.x.limit: must be at least 1",
    ]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        (
            "auth",
            "scopes: {job-creat: [admin]}",
            "scopes.job-creat: unknown route; did you mean 'job-create'?",
        ),
        (
            "auth",
            "scopes: {job-create: [job:write]}",
            "scopes.job-create[0]: unknown scope; did you mean 'jobs:write'?",
        ),
        (
            "auth",
            f"entries: [{{id: a, owner: o, hash: {HASH}, scopes: [webhook]}}]",
            "entries[0].scopes[0]: unknown scope; did you mean 'webhooks'?",
        ),
        (
            "auth",
            f"entries: [{{id: a, owner: o, hash: {HASH}, expires: 2027-01-31T00:00:00}}]",
            "entries[0].expires: must be a time with its zone, like 2027-01-31T00:00:00Z",
        ),
        (
            "auth",
            "entries: [{id: a, owner: o, hash: abc}]",
            "entries[0].hash: must match ^(sha256:)?[0-9a-f]{64}$",
        ),
        ("auth", "public: [{path: health}]", "public[0].path: must begin with /"),
        (
            "auth",
            "public: [{path: /, methods: [FETCH]}]",
            "public[0].methods[0]: is not a method; did you mean 'PATCH'?",
        ),
        ("auth", "keys: {header: 'X Key'}", "keys.header: is not a header's name"),
        (
            "cache",
            "ttl_by_state: {complete: 1s}",
            "ttl_by_state.complete: unknown state; did you mean 'completed'?",
        ),
        (
            "cache",
            "{max_bytes: 1MiB, max_entry: 2MiB}",
            "max_entry: is more than max_bytes: nothing that large could be kept",
        ),
        ("cache", "http: {targets: [A B]}", "http.targets[0]: is not a header's name"),
        ("cache", "public: [job-lists]", "public[0]: unknown route; did you mean 'job-list'?"),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 1s, routes: [webhook]}}",
            "limits.x.routes[0]: unknown route; did you mean 'webhooks'?",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 1s, by: []}}",
            "limits.x.by: must name what is counted: ip, key, owner, route, scope or header:NAME",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 1s, by: [ip, ip]}}",
            "limits.x.by[1]: names ip twice",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 1s, by: [keys]}}",
            "limits.x.by[0]: cannot be counted; did you mean 'key'?",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 1s, by: ['header:X Y']}}",
            "limits.x.by[0]: is not a header's name",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: -60s}}",
            "limits.x.window: '-60s' is not a duration; write it like 500ms, 15s, 5m or 1h",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: -60}}",
            "limits.x.window: must be more than 0",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 400d}}",
            "limits.x.window: must not be longer than 366d",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 5000000000, window: 1s}}",
            "limits.x.limit: must be at most 1e+09",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 1, window: 1s}, x: {limit: 2, window: 1s}}",
            "limits.x: is there twice, first in line 1",
        ),
        (
            "rate_limits",
            "limits: {größe: {limit: 1, window: 1s}}",
            "limits.größe: must be named in printable ASCII: the answers' fields show it",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 3, window: 1s, cost: {job-creat: 1}}}",
            "limits.x.cost.job-creat: unknown route; did you mean 'job-create'?",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 3, window: 1s, cost: {job-create: 4}}}",
            "limits.x.cost.job-create: is more than the limit of 3: none would ever pass",
        ),
        (
            "rate_limits",
            "limits: {x: {limit: 3, window: 1s, routes: [webhooks], cost: {job-create: 2}}}",
            "limits.x.cost.job-create: is not among the limit's routes",
        ),
        (
            "rate_limits",
            "limits: {each-key: {limit: 3, window: 1s}}\ntiers: {t: {eachkey: {limit: 9}}}",
            "tiers.t.eachkey: unknown limit; did you mean 'each-key'?",
        ),
        (
            "rate_limits",
            "limits: {a: {limit: 3, window: 1s, by: [ip]}}\nkeys: {k: {a: {limit: 9}}}",
            "keys.k.a: is decided by the address, before the key is known",
        ),
        (
            "rate_limits",
            (
                "limits: {a: {limit: 3, window: 1s, by: [key], cost: {webhooks: 2}}}\n"
                "tiers: {t: {a: {limit: 1}}}"
            ),
            "tiers.t.a.limit: is less than the limit's cost of 2",
        ),
        (
            "auth",
            f"entries: [{{id: a, owner: o, hash: {HASH}, tier: gold}}]",
            "entries[0].tier: unknown tier; rate_limits.yaml has none",
        ),
        (
            "auth",
            f"entries: [{{id: a, owner: o, hash: {HASH}, networks: [10.0.0.1/8]}}]",
            (
                "entries[0].networks[0]: must be a range like 10.0.0.0/8 or fd00::/8: "
                "its host bits are set"
            ),
        ),
        ("auth", "keys: {source: []}", "keys.source: must name file, store or both, each once"),
        ("security_headers", "headers: {'X Y': a}", "headers.X Y: is not a header's name"),
        (
            "security_headers",
            'headers: {X-Y: "a\\r\\nSet-Cookie: b"}',
            "headers.X-Y: must be one line of visible ASCII",
        ),
    ],
)
def test_a_rule_that_a_policy_breaks_is_said(
    tmp_path: Path, file: str, text: str, problem: str
) -> None:
    (tmp_path / f"{file}.yaml").write_text(text)

    line = text[: text.find("\n") + 1 or None].count("\n") + 1
    assert refused(tmp_path) == [f"{file}.yaml:{line}: {problem}"]


def test_two_entries_cannot_share_an_id_or_a_key(tmp_path: Path) -> None:
    (tmp_path / "auth.yaml").write_text(
        "entries:\n"
        f"  - {{id: a, owner: o, hash: {HASH}}}\n"
        f"  - {{id: a, owner: o, hash: 'sha256:{HASH}'}}\n"
    )

    assert refused(tmp_path) == [
        "auth.yaml:3: entries[1].id: 'a' is the id of entry 0 already",
        "auth.yaml:3: entries[1].hash: is the same key as entry 0",
    ]


def test_a_tier_must_be_one_of_the_other_file(tmp_path: Path) -> None:
    (tmp_path / "rate_limits.yaml").write_text(
        "limits: {a: {limit: 3, window: 1s, by: [key]}}\ntiers: {partner: {a: {limit: 9}}}\n"
    )
    (tmp_path / "auth.yaml").write_text(
        f"entries:\n  - {{id: a, owner: o, hash: {HASH}, tier: partners}}\n"
    )

    assert refused(tmp_path) == [
        "auth.yaml:2: entries[0].tier: unknown tier; did you mean 'partner'?"
    ]
