"""Conversion of table values to text or to the type of an attribute, for typed and untyped formats."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Callable
from typing import Any

from raysys.config.schema import AttributeType
from raysys.pack.catalog.raw_rows import is_unicode
from raysys.types import AttributeValue

_EXACT_FLOATS = 2**53  # below it every integer has a float of its own
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def as_text(value: Any) -> str:
    """The value as text; "" for a missing one. Integral floats lose their point: pandas stores 7 as 7.0.

    Raises: ValueError for a value without one text form (a list, a boolean, infinity), for bytes that are not
    UTF-8, and for an unpaired surrogate.
    """
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOATS:
        value = int(value)
    if isinstance(value, datetime.date | datetime.time):
        value = value.isoformat()
    is_text = isinstance(value, str | int | float | decimal.Decimal | uuid.UUID)
    if isinstance(value, bool) or not is_text or value in (math.inf, -math.inf):
        raise ValueError(f"should be text, got {value!r:.80}")
    return require_unicode(str(value))


def as_id(value: Any) -> str:
    """The value as the text of an item id: equal numbers give equal ids, whatever type stores them.

    Raises: ValueError as `as_text`, and for a float from 2**53, which other ids may have been rounded to.
    """
    if isinstance(value, float) and abs(value) >= _EXACT_FLOATS:
        raise ValueError(f"should be text or an exact number, got {value!r}; store ids as text or integers")
    if isinstance(value, decimal.Decimal) and value.is_finite():
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return as_text(value).strip()


def require_unicode(text: str) -> str:
    """The text itself.

    Raises: ValueError if it cannot be encoded as UTF-8.
    """
    if is_unicode(text):
        return text
    try:
        data = text.encode("utf-8", "surrogateescape")  # as `text_lines` decodes it
    except UnicodeEncodeError:
        raise ValueError(f"should be Unicode text, got {text!r:.80}") from None
    raise ValueError(f"should be UTF-8 text, got {data!r:.80}")


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
