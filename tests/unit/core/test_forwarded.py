"""Who a request really comes from, and what the upstream is told of it."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.core.forwarded import TrustedProxies, forward

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])


def resolve(peer: str, *fields: tuple[str, str], scheme: str = "http") -> tuple[str, str]:
    return PROXIES.resolve(peer, scheme, CIMultiDict(fields))


def said(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


def proto(value: str) -> tuple[str, str]:
    return ("X-Forwarded-Proto", value)


def test_stranger_is_the_client_whatever_it_claims() -> None:
    claims = (said("203.0.113.9"), proto("https"))
    assert resolve("198.51.100.1", *claims) == ("198.51.100.1", "http")


def test_without_trusted_proxies_nothing_is_believed() -> None:
    nobody = TrustedProxies([])
    claims = CIMultiDict([said("203.0.113.9")])
    assert nobody.resolve("10.0.0.1", "http", claims) == ("10.0.0.1", "http")


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        # The client wrote 1.1.1.1 itself; the trusted proxy added what it saw.
        ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.1.1, 10.2.2.2", "203.0.113.9"),
        ("203.0.113.9,192.0.2.7", "203.0.113.9"),
        ("203.0.113.9,192.0.2.8", "192.0.2.8"),
        ("10.1.1.1", "10.1.1.1"),
        ("2a00::1", "2a00::1"),
        ("[2a00::1]:443", "2a00::1"),
        ("203.0.113.9:5678", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2a00::1, 2001:db8::5", "2a00::1"),
        ("2A00:0:0::1", "2a00::1"),
    ],
)
def test_list_is_read_from_the_right_while_who_wrote_it_is_trusted(value: str, client: str) -> None:
    assert resolve("10.0.0.1", said(value))[0] == client


@pytest.mark.parametrize(
    "value", ["", "unknown", "_hidden", "203.0.113.9, unknown", "300.1.1.1", "1.1.1.1.1"]
)
def test_what_is_no_address_ends_the_walk(value: str) -> None:
    assert resolve("10.0.0.1", said(value))[0] == "10.0.0.1"


def test_walk_that_ends_early_keeps_the_last_address_that_was_trusted() -> None:
    assert resolve("10.0.0.1", said("203.0.113.9, bad, 10.1.1.1"))[0] == "10.1.1.1"


def test_header_lines_are_one_list() -> None:
    lines = (said("1.1.1.1"), said("203.0.113.9, 10.1.1.1"))
    assert resolve("10.0.0.1", *lines)[0] == "203.0.113.9"


def test_mapped_peer_is_the_ipv4_proxy() -> None:
    assert resolve("::ffff:10.0.0.1", said("203.0.113.9"))[0] == "203.0.113.9"


def test_peer_without_an_address_is_not_trusted() -> None:
    assert resolve("unix:", said("203.0.113.9")) == ("unix:", "http")


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS "], "https"),
        (["https, http"], "http"),
        # The first line is the client's own, the last the trusted proxy's.
        (["https", "http"], "http"),
        (["gopher"], "http"),
        ([""], "http"),
        ([], "http"),
    ],
)
def test_scheme_is_what_the_trusted_proxy_said_last(values: list[str], scheme: str) -> None:
    assert resolve("10.0.0.1", *(proto(value) for value in values))[1] == scheme


@pytest.mark.parametrize("text", ["10.0.0.0/33", "localhost", "", "10.0.0.1-10.0.0.9"])
def test_trusted_network_must_be_an_address_or_a_range(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        TrustedProxies([text])


def test_range_may_be_written_with_host_bits() -> None:
    proxies = TrustedProxies(["10.1.2.3/8"])
    headers = CIMultiDict([said("203.0.113.9")])
    assert proxies.resolve("10.9.9.9", "http", headers)[0] == "203.0.113.9"


def test_upstream_is_told_what_the_gateway_judged() -> None:
    headers = CIMultiDict(
        [
            said("6.6.6.6"),
            said("7.7.7.7"),
            proto("gopher"),
            ("x-forwarded-host", "evil.example"),
            ("Forwarded", "for=6.6.6.6"),
            ("Forwarded", "for=7.7.7.7"),
            ("X-Real-IP", "6.6.6.6"),
            ("Accept", "*/*"),
        ]
    )
    forward(headers, peer="203.0.113.9", scheme="https", host="api.example")
    assert sorted((name.lower(), value) for name, value in headers.items()) == [
        ("accept", "*/*"),
        ("forwarded", 'for=203.0.113.9;host="api.example";proto=https'),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "api.example"),
        ("x-forwarded-proto", "https"),
    ]


def test_upstream_is_told_even_when_the_client_said_nothing() -> None:
    headers: CIMultiDict[str] = CIMultiDict()
    forward(headers, peer="203.0.113.9", scheme="http", host="api.example")
    assert len(headers) == 4


@pytest.mark.parametrize(
    ("peer", "node"),
    [("203.0.113.9", "203.0.113.9"), ("2001:db8::1", '"[2001:db8::1]"'), ("unix", "unknown")],
)
def test_forwarded_names_the_client_as_the_rfc_writes_it(peer: str, node: str) -> None:
    headers: CIMultiDict[str] = CIMultiDict()
    forward(headers, peer=peer, scheme="http", host="[::1]:80")
    assert headers["Forwarded"] == f'for={node};host="[::1]:80";proto=http'


RFC7239 = TrustedProxies(["10.0.0.0/8"], "forwarded")


@pytest.mark.parametrize(
    ("values", "judged"),
    [
        (["for=203.0.113.9"], ("203.0.113.9", "http")),
        (["For=203.0.113.9;Proto=HTTPS;by=10.0.0.2"], ("203.0.113.9", "https")),
        (['for="[2a00::1]:4711"'], ("2a00::1", "http")),
        (["for=1.1.1.1;proto=https, for=203.0.113.9"], ("203.0.113.9", "http")),
        (["for=203.0.113.9", "for=10.1.1.1;proto=https"], ("203.0.113.9", "https")),
        (["for=unknown"], ("10.0.0.1", "http")),
        (["proto=https"], ("10.0.0.1", "https")),
        ([], ("10.0.0.1", "http")),
    ],
)
def test_forwarded_is_read_likewise_where_proxies_speak_it(
    values: list[str], judged: tuple[str, str]
) -> None:
    headers = CIMultiDict([("Forwarded", each) for each in values])
    assert RFC7239.resolve("10.0.0.1", "http", headers) == judged


def test_only_the_field_that_proxies_write_is_read() -> None:
    both = CIMultiDict([said("1.1.1.1"), ("Forwarded", "for=203.0.113.9")])
    assert RFC7239.resolve("10.0.0.1", "http", both)[0] == "203.0.113.9"
    assert PROXIES.resolve("10.0.0.1", "http", both)[0] == "1.1.1.1"
