"""Which hosts the gateway answers for."""

from __future__ import annotations

import pytest

from gateway.core.host import HostRule, host_name


@pytest.mark.parametrize(
    ("authority", "allowed"),
    [
        ("api.example.com", True),
        ("API.example.COM:8443", True),
        ("api.example.com.", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("evil.com", False),
        ("api.example.com.evil.com", False),
        ("[::1]:8080", True),
        ("[::2]:8080", False),
        ("", False),
    ],
)
def test_listed_hosts_alone_are_answered(authority: str, allowed: bool) -> None:  # noqa: FBT001
    rule = HostRule(["api.example.com", "*.example.org", "[::1]"])
    assert rule.allows(authority) is allowed


def test_without_a_list_any_host_is_answered() -> None:
    assert HostRule([]).allows("anything.example")


def test_a_name_has_no_port() -> None:
    assert host_name("Api.Example:80") == "api.example"
    assert host_name("[2001:DB8::1]:80") == "[2001:db8::1]"
