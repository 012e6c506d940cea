"""Every denied range at both of its ends, every spelling that hides one, and what must pass."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.address import (
    METADATA,
    AddressRule,
    Network,
    ParsedUrl,
    check_address,
    check_url,
)

RULE = AddressRule()
ANYTHING = tuple(ip_network(text) for text in ("0.0.0.0/0", "::/0"))
DEVELOPMENT = AddressRule.parse(
    ("https", "http"), (), any_port=True, allow=("127.0.0.0/8", "::1/128", "10.0.0.0/8")
)

# Written out again on purpose: the module's own tables are what is under test.
DENIED_IPV4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
]
DENIED_IPV6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]
OUTSIDE_IPV6 = [
    "::/128",
    "::1/128",
    "::127.0.0.1/128",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "1fff::/16",
    "4000::/3",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::",
    "2001:200::",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2001:4860:4860::8888",
    "2003::",
    "2606:4700::1111",
    "3ffe:ffff::",
    "3fff:1000::",
    "::ffff:8.8.8.8",
]


def ends(network: Network) -> list[str]:
    return [str(network[0]), str(network[-1])]


@pytest.mark.parametrize(
    "address",
    [
        address
        for text in (*DENIED_IPV4, *DENIED_IPV6, *OUTSIDE_IPV6)
        for address in ends(ip_network(text))
    ],
)
def test_both_ends_of_every_denied_range_are_denied(address: str) -> None:
    assert check_address(address) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_beside_them_are_not(address: str) -> None:
    assert check_address(address) is None


@given(st.sampled_from(DENIED_IPV4).flatmap(lambda text: st.ip_addresses(network=text)))
def test_no_address_of_a_denied_ipv4_range_passes_in_any_form(address: IPv4Address) -> None:
    number = int(address)
    assert check_address(address) is not None
    assert check_address(IPv6Address((0xFFFF << 32) | number)) is not None  # ::ffff:a.b.c.d
    assert check_address(IPv6Address(number)) is not None  # ::a.b.c.d
    assert check_address(IPv6Address((0x64FF9B << 96) | number)) is not None  # NAT64
    assert check_address(IPv6Address((0x2002 << 112) | (number << 80))) is not None  # 6to4


@given(st.ip_addresses(v=4))
def test_ipv4_is_denied_exactly_by_the_listed_ranges(address: IPv4Address) -> None:
    listed = any(address in IPv4Network(text) for text in DENIED_IPV4)
    assert (check_address(address) is not None) == listed


@given(st.one_of(st.ip_addresses(v=6), st.ip_addresses(network="2000::/3")))
def test_ipv6_is_allowed_exactly_within_2000_3_less_the_listed(address: IPv6Address) -> None:
    assume(address.ipv4_mapped is None)
    inside = address in IPv6Network("2000::/3")
    listed = any(address in IPv6Network(text) for text in DENIED_IPV6)
    assert (check_address(address) is None) == (inside and not listed)


def test_reason_names_the_range_and_its_use() -> None:
    assert check_address("10.1.2.3") == "is in 10.0.0.0/8 (private)"
    assert check_address("::ffff:127.0.0.1") == "is in 127.0.0.0/8 (loopback)"
    assert check_address("fe80::1") == "is outside 2000::/3, the public IPv6 addresses"


def test_allow_list_opens_its_ranges_and_no_others() -> None:
    assert check_address("10.1.2.3", DEVELOPMENT.allow) is None
    assert check_address("::ffff:10.1.2.3", DEVELOPMENT.allow) is None
    assert check_address("::1", DEVELOPMENT.allow) is None
    assert check_address("192.168.0.1", DEVELOPMENT.allow) is not None
    assert check_address("fe80::1", DEVELOPMENT.allow) is not None


@pytest.mark.parametrize("address", sorted(str(address) for address in METADATA))
def test_no_allow_list_opens_a_metadata_address(address: str) -> None:
    own = ip_network(address)
    assert check_address(address, (own, *ANYTHING)) == "is a cloud metadata service"


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.170.2",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "2001:0:808:808::5601:5601",  # Teredo's client address is inverted
        "fe80::a9fe:a9fe",
        "2600:1f00::a9fe:a9fe",  # NAT64 under a network's own prefix
    ],
)
def test_metadata_is_found_inside_translated_addresses(address: str) -> None:
    assert check_address(address, ANYTHING) == "is a cloud metadata service"


@pytest.mark.parametrize("text", ["", "example.com", "1.2.3", "127.0.0.1 ", "[::1]"])
def test_what_is_no_address_is_not_judged(text: str) -> None:
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        check_address(text)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("https://example.com/hook", ("https", "example.com", 443, "/hook")),
        ("https://example.com", ("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM?a=b", ("https", "example.com", 443, "/?a=b")),
        ("https://example.com:8443/a?b=c&d=/?", ("https", "example.com", 8443, "/a?b=c&d=/?")),
        ("https://example.com:80/", ("https", "example.com", 80, "/")),
        (
            "https://my_host.internal-net.example/",
            ("https", "my_host.internal-net.example", 443, "/"),
        ),
        ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443, "/")),
        ("https://1.1.1.1/", ("https", "1.1.1.1", 443, "/")),
        ("https://1and1.com/", ("https", "1and1.com", 443, "/")),
        ("https://example.com/a%2fb/%zz", ("https", "example.com", 443, "/a%2fb/%zz")),
        ("https://example.com/ä?ö", ("https", "example.com", 443, "/%C3%A4?%C3%B6")),
        ("https://example.com/@user:1", ("https", "example.com", 443, "/@user:1")),
        ("https://[2606:4700:0::1111]/", ("https", "2606:4700::1111", 443, "/")),
        ("https://[::ffff:8.8.8.8]/", ("https", "::ffff:808:808", 443, "/")),
    ],
)
def test_url_within_the_rule_is_taken_apart(url: str, parsed: tuple[str, str, int, str]) -> None:
    assert check_url(url, RULE) == ParsedUrl(*parsed)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("HTTPS://Example.com:443", "https://example.com/"),
        ("https://example.com:8443/a?b", "https://example.com:8443/a?b"),
        ("https://[2606:4700:0::1111]:80/", "https://[2606:4700::1111]:80/"),
    ],
)
def test_parsed_url_is_written_in_one_way(url: str, text: str) -> None:
    assert check_url(url, RULE).url == text


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "absolute URL"),
        ("example.com/hook", "absolute URL"),
        ("//example.com/hook", "absolute URL"),
        ("https:example.com", "absolute URL"),
        ("https:/example.com", "absolute URL"),
        ("http://example.com/", "must use https, not http"),
        ("ftp://example.com/", "must use https, not ftp"),
        ("file:///etc/passwd", "must use https, not file"),
        ("javascript://example.com/", "must use https"),
        ("https://", "must have a host"),
        ("https:///hook", "must have a host"),
        ("https://:443/", "must have a host"),
        ("https://user@example.com/", "user name"),
        ("https://user:word@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://1.1.1.1:443@127.0.0.1/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com#@127.0.0.1/", "fragment"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https:\\\\example.com/", "backslash"),
        ("https://example.com/a b", "spaces"),
        (" https://example.com/", "spaces"),
        ("https://example.com/\n", "spaces"),
        ("https://example.com/\r\nHost: x", "spaces"),
        ("https://exa\tmple.com/", "spaces"),
        ("https://example.com/\x00", "spaces"),
        ("https://example.com/\x7f", "spaces"),
        ("https://example.com/\x85", "spaces"),
        ("https://example.com/\u00a0", "spaces"),
        ("https://example.com/\u200b", "spaces"),
        ("https://example.com/\u2028", "spaces"),
        ("https://example.com/\ud800", "spaces"),
        ("https://example.com:22/", "ports 443, 80, 8443, not 22"),
        ("https://example.com:/", "port from 1"),
        ("https://example.com:0/", "port from 1"),
        ("https://example.com:0443/", "port from 1"),
        ("https://example.com:65536/", "port from 1"),
        ("https://example.com:443x/", "port from 1"),
        ("https://example.com:+443/", "port from 1"),
        ("https://example.com:٤٤٣/", "port from 1"),
        ("https://example.com:443:443/", "port from 1"),
        ("https://example.com./", "dot at the end"),
        ("https://127.0.0.1./", "dot at the end"),
        ("https://example..com/", "DNS name"),
        ("https://.example.com/", "DNS name"),
        ("https://-a.example/", "DNS name"),
        ("https://a,b.example/", "DNS name"),
        ("https://*.example/", "DNS name"),
        ("https://%31%32%37.0.0.1/", "IPv4 address as four"),
        ("https://exa%6dple.com/", "DNS name"),
        (f"https://{'a' * 64}.example/", "DNS name"),
        (f"https://{'a.' * 126}example/", "DNS name"),
        (f"https://example.com/{'a' * 2048}", "at most 2048"),
        ("https://bücher.example/", "ASCII"),
        ("https://example。com/", "ASCII"),
        ("https://metadata.google.internal/", "metadata"),
        ("https://METADATA.google.internal/", "metadata"),
        ("https://localhost/", "loopback"),
        ("https://a.localhost/", "loopback"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[2606:4700::1111%eth0]/", "zone"),
        ("https://[example.com]/", "between its brackets"),
        ("https://[]/", "between its brackets"),
        ("https://[1.1.1.1]/", "between its brackets"),
        ("https://[::1/", "host and"),
        ("https://::1/", "port from 1"),
        ("https://2606:4700::1111/", "port from 1"),
        ("https://[2606:4700::1111]443/", "host and"),
        ("https://[2606:4700::1111]x:443/", "host and"),
    ],
)
def test_url_outside_the_rule_is_refused_with_the_rule(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_url(url, RULE)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "127.0.0.0x1",
        "127.0.0.1.",
        "0",
        "0.",
        "0x",
        "0.0.0.0",
        "１２７.０.０.１",  # noqa: RUF001 - the full-width digits are the point
        "127。0。0。1",
        "①②⑦.0.0.1",
        "٠",  # noqa: RUF001 - as above
        "[::1]",
        "[::]",
        "[::ffff:7f00:1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "[fd00:ec2::254]",
        "1.1.1.1.1",
        "1.2.3",
        "256.1.1.1",
        "4294967296",
        "99999999999999999999",
        "example.127",
    ],
)
def test_every_spelling_of_a_denied_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_url(f"https://{host}/", RULE)


@given(st.ip_addresses(v=4))
def test_number_spellings_never_pass_whatever_they_stand_for(address: IPv4Address) -> None:
    number = int(address)
    octets = address.packed
    hidden = [
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(hex(octet) for octet in octets),
        ".".join(f"0{octet:o}" for octet in octets),
        f"{octets[0]}.{number & 0xFFFFFF}",
        f"{octets[0]}.{octets[1]}.{number & 0xFFFF}",
    ]
    for host in hidden:
        with pytest.raises(ValueError, match="four decimal numbers"):
            check_url(f"https://{host}/", RULE)


@given(st.text(max_size=60))
def test_any_text_is_refused_or_parses_to_what_parses_again(text: str) -> None:
    try:
        parsed = check_url("https://" + text, RULE)
    except ValueError:
        return
    assert parsed.url.isascii()
    assert check_url(parsed.url, RULE) == parsed
    assert parsed.port in (443, 80, 8443)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/hook",
        "http://localhost:9000/",
        "http://[::1]:9000/",
        "http://10.1.1.1/",
        "https://example.com:1/",
    ],
)
def test_development_rule_opens_http_ports_and_ranges(url: str) -> None:
    assert check_url(url, DEVELOPMENT).url == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "http://192.168.0.1/",
        "http://2130706433/",
        "http://169.254.169.254/",
        "http://metadata.google.internal/",
        "http://127.0.0.1:0/",
    ],
)
def test_development_rule_opens_nothing_else(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_url(url, DEVELOPMENT)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "ten", "10.0.0.0/33", ""])
def test_allow_list_takes_networks_only(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}'|{text} has host bits set"):
        AddressRule.parse(("https",), (443,), allow=(text,))


def test_metadata_addresses_are_at_least_the_known_ones() -> None:
    known = [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.170.2",
    ]
    assert {ip_address(text) for text in known} <= METADATA
