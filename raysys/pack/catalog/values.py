"""Conversion of table values to text or to the type of an attribute, for typed and untyped formats."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Callable
from typing import Any

from raysys.columns import AttributeValue
from raysys.config.schema import AttributeType

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def as_text(value: Any) -> str:
    """The value as text; "" for a missing one. Integral floats lose their point: pandas stores 7 as 7.0.

    Raises: ValueError for a value without one text form (a list, a boolean), and for an unpaired surrogate.
    """
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, datetime.date | datetime.time):
        value = value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float | decimal.Decimal | uuid.UUID):
        raise ValueError(f"should be text, got {value!r:.80}")
    text = str(value)
    if not _is_unicode(text):
        raise ValueError(f"should be Unicode text, got {text!r:.80}")
    return text


def as_type(value: Any, kind: AttributeType) -> AttributeValue:
    """The value converted to the type of its attribute; None for an empty cell.

    Raises: ValueError for a value that cannot be converted.
    """
    if _is_missing(value) or value == "":
        return None
    try:
        return _CONVERSIONS[kind](value)
    except (ValueError, TypeError, KeyError, OverflowError, decimal.InvalidOperation) as error:
        raise ValueError(f"should be of type {kind}, got {value!r:.80}") from error


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_unicode(text: str) -> bool:
    # A surrogate code point alone cannot be encoded as UTF-8.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else as_text(value)


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or (not isinstance(value, str) and number != value):
        raise ValueError("not an integer")
    if not -(2**63) <= number < 2**63:
        raise ValueError("more than 64 bits")
    return number


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _boolean(value: Any) -> bool:
    return _BOOLEANS[str(value).strip().lower()]


_CONVERSIONS: dict[AttributeType, Callable[[Any], AttributeValue]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}
