"""Which requests a variant answers."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.core.vary import is_answered_by, normalized, varied_fields, vary_values


def test_every_line_of_vary_counts() -> None:
    response = CIMultiDict([("Vary", ", Foo"), ("vary", " BAR ,*")])

    assert varied_fields(response) == {"foo", "bar", "*"}
    assert varied_fields(CIMultiDict()) == set()


def test_a_variant_answers_requests_with_the_same_values() -> None:
    made_for = CIMultiDict([("X-Tenant", "a ,b"), ("X-Other", "1")])
    values = vary_values(CIMultiDict({"Vary": "X-TENANT, X-Absent, "}), made_for)

    assert values == (("x-absent", None), ("x-tenant", "a,b"))
    assert is_answered_by(CIMultiDict([("x-tenant", "a"), ("X-Tenant", "b")]), values)
    assert not is_answered_by(CIMultiDict({"X-Tenant": "b,a"}), values)
    assert not is_answered_by(CIMultiDict({"X-Tenant": "a,b", "X-Absent": "1"}), values)


def test_an_empty_field_is_not_an_absent_one() -> None:
    assert normalized(CIMultiDict({"Foo": ""}), "foo") == ""
    assert normalized(CIMultiDict(), "foo") is None


@pytest.mark.parametrize("same", ["de, en", "EN,dE", " en ,  de", "en,,de"])
def test_of_the_accept_family_neither_case_nor_order_means_anything(same: str) -> None:
    values = (("accept-language", normalized(CIMultiDict(a="en, de"), "a")),)
    assert values == (("accept-language", "en,de"),)

    stored = vary_values(
        CIMultiDict(Vary="Accept-Language"), CIMultiDict({"Accept-Language": "en, de"})
    )
    assert is_answered_by(CIMultiDict({"Accept-Language": same}), stored)


def test_a_weight_means_something() -> None:
    one, other = "en;q=0.5, de", "en, de;q=0.5"

    assert normalized(CIMultiDict(Accept=one), "accept") != normalized(
        CIMultiDict(Accept=other), "accept"
    )
