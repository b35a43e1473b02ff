"""Quantities as Kubernetes writes them: "500m" of a core, "512Mi" of memory. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import Decimal

_CPU = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>m?)")
_BYTES = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?)(?P<unit>(?:[KMGT]i|[kKMGT])?)")
_UNITS = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_MAX_BYTES = 2**60
"""An exbibyte; more is a slip of the finger."""


class BadQuantity(ValueError):
    """A text is no quantity; the message says what one looks like."""


def parse_cpu(text: str) -> int:
    """Thousandths of a core: 500 for "500m" and for "0.5".

    Raises:
        BadQuantity: it is none, or finer than a thousandth.
    """
    found = _CPU.fullmatch(text)
    if found is None:
        raise BadQuantity(f"is {text!r}; cores are written as '500m', '1' or '0.5'")
    millicores = Decimal(found["number"]) * (1 if found["unit"] else 1_000)
    if millicores != int(millicores):
        raise BadQuantity(f"is {text!r}; a thousandth of a core ('1m') is the least there is")
    return int(millicores)


def parse_bytes(text: str) -> int:
    """Bytes: 536,870,912 for "512Mi".

    Raises:
        BadQuantity: it is none, no whole number of bytes, or beyond an exbibyte.
    """
    found = _BYTES.fullmatch(text)
    if found is None:
        raise BadQuantity(f"is {text!r}; amounts are written as '512Mi', '1Gi' or '500M'")
    amount = Decimal(found["number"]) * _UNITS[found["unit"]]
    if amount != int(amount):
        raise BadQuantity(f"is {text!r}, which is no whole number of bytes")
    if amount > _MAX_BYTES:
        raise BadQuantity(f"is {text!r}, which is beyond what any machine has")
    return int(amount)


def cpu_text(millicores: int) -> str:
    """The shortest way to write it: "1", "500m"."""
    whole, rest = divmod(millicores, 1_000)
    return f"{millicores}m" if rest else str(whole)


def bytes_text(amount: int) -> str:
    """The shortest exact way to write it in binary units: "512Mi"; plain bytes if there is none."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        size = _UNITS[unit]
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def measured_text(amount: int) -> str:
    """An amount that was measured, to the mebibyte below."""
    return f"{amount >> 20}Mi"


def room_text(amount: int) -> str:
    """An amount that is free, to the unit that has a few digits: "48Gi", "900Mi"."""
    return f"{amount >> 30}Gi" if amount >= 2 * _UNITS["Gi"] else measured_text(amount)
