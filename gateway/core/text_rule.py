"""Text of clients that must not become a script, or deceive, where it is shown later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.core.violation import Violations

Action = Literal["reject", "strip", "allow"]

# Where the HTML standard's tokenizer leaves text: `<` before a letter, `/`, `!` or `?` (sections
# 13.2.5.1 and 13.2.5.6). All `<` of a run go, so that stripping one does not make another.
_MARKUP = re.compile(r"<+(?=[A-Za-z/!?])")
# URL schemes that run what follows them, with the blanks that browsers skip (URL standard, 4.4).
_SCRIPT_URL = re.compile(
    r"^[\x00-\x20]*(?:j\s*a\s*v\s*a|v\s*b)\s*s\s*c\s*r\s*i\s*p\s*t\s*:|^[\x00-\x20]*data:[^,]*(?:html|xml)",
    re.IGNORECASE,
)
# C0 without tab and line ends, DEL, C1; direction overrides that show text in another order than it
# is read (CVE-2021-42574); surrogates without their other half.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SUSPECT = re.compile(f"{_MARKUP.pattern}|{_CONTROL.pattern}|:")


@dataclass(frozen=True, slots=True)
class TextRule:
    """What happens to markup and to control characters in the strings of a body."""

    markup: Action = "reject"
    control: Action = "reject"

    @property
    def is_idle(self) -> bool:
        """True when everything is allowed."""
        return self.markup == self.control == "allow"


@dataclass(slots=True)
class TextVerdict:
    """What a rule makes of a document: `changed` says that `document` is not what came."""

    document: Any = None
    changed: bool = False
    violations: Violations = field(default_factory=Violations)


def judge(document: Any, rule: TextRule) -> TextVerdict:
    """Every string of a JSON document by the rule; the names of members are never stripped.

    Stripping takes out the characters that matter and leaves the rest to be read: `<b>hi` becomes
    `b>hi`. A URL that runs a script cannot be mended, and is rejected where markup is not allowed.
    """
    verdict = TextVerdict()
    verdict.document = _judged(document, rule, (), verdict)
    return verdict


def judge_text(text: str, rule: TextRule) -> tuple[str, str | None]:
    """The text as the rule has it, and what is wrong with it where that cannot be mended."""
    if not _SUSPECT.search(text):
        return text, None
    if rule.control == "reject" and (found := _CONTROL.search(text)):
        return text, f"holds the control character U+{ord(found[0]):04X}"
    if rule.control == "strip":
        text = _CONTROL.sub("", text)
    if rule.markup != "allow" and _SCRIPT_URL.search(text):
        return text, "is a URL that runs a script"
    if rule.markup == "reject" and _MARKUP.search(text):
        return text, "holds markup ('<' that opens a tag); send plain text"
    if rule.markup == "strip":
        text = _MARKUP.sub("", text)
    return text, None


def _judged(value: Any, rule: TextRule, path: tuple[str | int, ...], verdict: TextVerdict) -> Any:
    if isinstance(value, str):
        text, problem = judge_text(value, rule)
        if problem is not None:
            verdict.violations.add(problem, *path)
        elif text != value:
            verdict.changed = True
        return text
    if isinstance(value, dict):
        return dict(_members(value, rule, path, verdict))
    if isinstance(value, list):
        return [_judged(item, rule, (*path, i), verdict) for i, item in enumerate(value)]
    return value


def _members(
    value: dict[str, Any], rule: TextRule, path: tuple[str | int, ...], verdict: TextVerdict
) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        mended, problem = judge_text(name, rule)
        if problem is not None or mended != name:
            # Two names might become one. The pointer ends at the object: the name cannot be shown.
            verdict.violations.add(f"has a member whose name {problem or 'holds markup'}", *path)
        yield name, _judged(item, rule, (*path, name), verdict)
