"""How Kubernetes wants names, labels and resources to be written."""

from __future__ import annotations

import re

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_SCALES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
}
_SCALES |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)}


def is_label_key(text: str) -> bool:
    """Whether a text can be the key of a label: NAME or DOMAIN/NAME."""
    domain, slash, name = text.rpartition("/")
    if slash and (len(domain) > 253 or not _SUBDOMAIN.fullmatch(domain)):
        return False
    return len(name) <= 63 and _LABEL.fullmatch(name) is not None


def is_subdomain(text: str) -> bool:
    """Whether a text can be the name of an object of most kinds."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Whether a text can be the value of a label."""
    return text == "" or (len(text) <= 63 and _LABEL.fullmatch(text) is not None)


def quantity(value: object) -> float | None:
    """What a resource quantity is (500m, 8Gi, 2), None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = _QUANTITY.fullmatch(str(value))
    if not found:
        return None
    unit = found[2] or ""
    if unit[:1] in ("e", "E") and len(unit) > 1 and not unit.endswith("i"):
        return float(found[1] + unit)
    return float(found[1]) * _SCALES[unit]
