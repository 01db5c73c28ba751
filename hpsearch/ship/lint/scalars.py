"""What a plain YAML scalar means to kubectl: YAML 1.1 as sigs.k8s.io/yaml reads it, as JSON values."""

from __future__ import annotations

import re

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_OCTAL = re.compile(r"([-+]?)0o?([0-7][0-7_]*)")
_HEXADECIMAL = re.compile(r"([-+]?)0x([0-9A-Fa-f][0-9A-Fa-f_]*)")
_BINARY = re.compile(r"([-+]?)0b([01][01_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# Beyond it Python refuses, and no field of any manifest is so long.
LONGEST_NUMBER = 300  # characters

Scalar = str | int | float | bool | None


def scalar(text: str) -> Scalar:
    """The value of a plain scalar. A date stays the text that it becomes in JSON anyway."""
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > LONGEST_NUMBER or text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    for form, base in ((_HEXADECIMAL, 16), (_BINARY, 2), (_OCTAL, 8)):
        if found := form.fullmatch(text):
            return int(found[1] + found[2].replace("_", ""), base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
