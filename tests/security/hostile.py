"""Ten thousand texts that mean harm somewhere: to a shell, a path, a terminal, a page, a database."""

from __future__ import annotations

import random

PAYLOADS = (
    *(
        "$(touch canary)",
        "`touch canary`",
        "; touch canary",
        "| touch canary",
        "&& touch canary",
        "\ntouch canary\n",
    ),
    *("--name=value", "-rf", "--", "", " ", "'", '"', "\\", "%s%n", "{0}", "${HOME}", "$HOME", "~root"),
    *(
        "../../canary",
        "/etc/passwd",
        "..%2f..%2fcanary",
        "con",
        "nul",
        ".",
        "..",
        "a/../../b",
        "C:\\x",
        "x" * 300,
    ),
    *(
        "\x1b[2J\x1b[1;1H",
        "\x1b]0;title\x07",
        "\x9b2J",
        "\r",
        "\b\b\b",
        "\x7f",
        "\u202egnp.exe",
        "\u200b",
        "[red]x[/red]",
    ),
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "javascript:alert(1)",
        "]]>",
        "&lt;",
        "{{7*7}}",
    ),
    *(
        "' OR 1=1 --",
        "'; DROP TABLE trial; --",
        "`uid` = 'x'",
        "%",
        "_",
        "=cmd|' /C calc'!A0",
        "+1",
        "@SUM(A1)",
    ),
    *(
        "é",
        "日本語",
        "𝔘",
        "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
        "a\u0301",
        "\ufeff",
    ),
)


def texts(count: int = 10_000, seed: int = 0) -> list[str]:
    """The payloads, then mixtures of them with letters, all without NUL, which no argument can hold."""
    draw = random.Random(seed)
    found = list(PAYLOADS)
    while len(found) < count:
        letters = "".join(draw.choices("abcXYZ019_-. =/\\'\"$`", k=8))
        parts = [letters, *draw.choices(PAYLOADS, k=draw.randint(1, 3))]
        draw.shuffle(parts)
        found.append("".join(parts))
    return found
