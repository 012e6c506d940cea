"""A ticket opens the job it was made for, for the key it was made for, for as long as it says."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.ticket import (
    Carried,
    TicketRefused,
    derive_secret,
    holds_ticket,
    seal,
    take_tickets,
    unseal,
)

SECRET = bytes(range(32))
NOW = 1_700_000_000.0
END = 1_700_000_060
TICKET = seal(SECRET, "j1", "k1", END)
TEXT = st.text(min_size=1, max_size=40)


@given(job_id=TEXT, key_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_a_ticket_stands_for_its_key_at_its_job(job_id: str, key_id: str) -> None:
    ticket = seal(SECRET, job_id, key_id, END)
    assert unseal(SECRET, ticket, job_id, NOW) == key_id
    assert quote(ticket, safe="") == ticket  # it stands in a URL as it is
    assert holds_ticket(f"/x/{ticket}")


@given(at=st.integers(0, len(TICKET) - 1), put=st.characters(codec="ascii"))
@example(at=TICKET.rindex(".") - 1, put="F")
def test_a_ticket_that_was_changed_opens_nothing(at: int, put: str) -> None:
    changed = TICKET[:at] + put + TICKET[at + 1 :]
    if changed != TICKET:
        with pytest.raises(TicketRefused):
            unseal(SECRET, changed, "j1", NOW)


@pytest.mark.parametrize(
    ("ticket", "job_id", "now", "reason"),
    [
        (TICKET, "j2", NOW, "ticket-invalid"),
        (TICKET, "j1", float(END), "ticket-expired"),
        (TICKET.replace(f"_{END}", f"_{END + 9}"), "j1", NOW, "ticket-invalid"),
        (TICKET.replace(f"_{END}", f"_0{END}"), "j1", NOW, "ticket-invalid"),
        (seal(derive_secret(SECRET), "j1", "k1", END), "j1", NOW, "ticket-invalid"),
        (TICKET + "A", "j1", NOW, "ticket-malformed"),
        (TICKET[:-1], "j1", NOW, "ticket-malformed"),
        ("gwt_1.A." + "A" * 43, "j1", NOW, "ticket-malformed"),  # `A` is no base64
        ("gwt_1._w." + "A" * 43, "j1", NOW, "ticket-malformed"),  # nor `_w` text
        ("gwt_", "j1", NOW, "ticket-malformed"),
        ("", "j1", NOW, "ticket-malformed"),
    ],
)
def test_why_a_ticket_is_refused(ticket: str, job_id: str, now: float, reason: str) -> None:
    with pytest.raises(TicketRefused) as caught:
        unseal(SECRET, ticket, job_id, now)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("query", "carried"),
    [
        ("", None),
        ("a=1&ticket=of-the-upstreams", None),
        ("a=%20&b=2", None),
        ("ticket=gwt_1", Carried("", ("gwt_1",))),
        ("a=%201&ticket=gwt_1&b=2", Carried("a=%201&b=2", ("gwt_1",))),
        ("ticket=gwt_1&ticket=gwt_2", Carried("", ("gwt_1", "gwt_2"))),
        ("t%69cket=gwt%5f1", Carried("", ("gwt_1",))),
        ("other=gwt_1&b=2", Carried("b=2", (), is_misplaced=True)),
        ("gwt_1", Carried("", (), is_misplaced=True)),
        ("ticket=x-gwt_1", Carried("", (), is_misplaced=True)),
        ("ticket=gwt_1&x=gwt_2", Carried("", ("gwt_1",), is_misplaced=True)),
    ],
)
def test_tickets_are_taken_out_of_a_query(query: str, carried: Carried | None) -> None:
    assert take_tickets(query) == carried


@given(
    before=st.lists(st.tuples(TEXT, TEXT), max_size=3),
    spelled=st.lists(st.booleans(), min_size=len(TICKET), max_size=len(TICKET)),
)
def test_no_spelling_leaves_a_ticket_in_what_is_forwarded(
    before: list[tuple[str, str]], spelled: list[bool]
) -> None:
    rest = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in before)
    letters = [f"%{ord(c):02X}" if hide else c for c, hide in zip(TICKET, spelled, strict=True)]
    carried = take_tickets(f"{rest}&ticket={''.join(letters)}")
    assert carried == Carried(rest, (TICKET,))
