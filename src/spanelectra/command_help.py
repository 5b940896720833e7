"""What ``--help`` shows of a command's options: words, without Python's types and the markup of docstrings."""

from __future__ import annotations

import re
from argparse import Action

from jsonargparse import DefaultHelpFormatter

_MARKUP = re.compile(r":\w+:`~?(?:\w+\.)*(\w+)`|``([^`]*)``")
# what the parser puts at the end of an option's help
_DETAILS = re.compile(r" ?\((required)?(?:, )?(?:type: (.+?))?(?:(?:, )?default: (.*))?\)$")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "int | str": "a whole number or a schedule",
    "Union[int, str, null]": "a whole number or a schedule",
    "float | str": "a number or a schedule",
    "list[str]": "one, or several separated by commas",
    "str | list[str]": "one, or several separated by commas",
    "Union[str, list[str]]": "one, or several separated by commas",
}


class HelpInWords(DefaultHelpFormatter):
    """The parser's formatter; what it says of an option's type and default is said in words."""

    def _expand_help(self, action: Action) -> str:
        # argparse says "required" of what may be given any number of times, and so left out
        in_words = "" if action.nargs == "*" and not action.option_strings else _in_words
        return plain_text(_DETAILS.sub(in_words, super()._expand_help(action)))

    def _format_action_invocation(self, action: Action) -> str:
        # the parser's second name of a list, by which something is added to it
        return re.sub(r", --\w+\+ \w+$", "", super()._format_action_invocation(action))


def plain_text(text: str) -> str:
    """Text without the marks around names of code."""
    return _MARKUP.sub(lambda found: found[1] or found[2], text)


def _in_words(details: re.Match[str]) -> str:
    required, kind, default = details.groups()
    parts = [required, _kind_in_words(kind or "")]
    if default not in (None, "", "null"):
        parts.append(f"default: {default.lower() if default in ('True', 'False') else default}")
    words = "; ".join(part for part in parts if part)
    return f" ({words})" if words else ""


def _kind_in_words(kind: str) -> str:
    """What may be given; nothing of text and switches, which show themselves."""
    choices = re.findall(r"'([^']*)'", kind)
    if choices:
        return f"{'some' if 'list[' in kind else 'one'} of {', '.join(choices)}"
    optional = re.fullmatch(r"Optional\[(.*)\]", kind)
    kind = optional[1] if optional else kind.replace(" | null", "").replace(", null", "")
    return _KINDS.get(kind, "")
