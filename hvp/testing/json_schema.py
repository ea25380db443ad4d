"""The part of JSON Schema that the package's own schemas use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def first_violation(document: Any, schema: Mapping[str, Any], place: str = "") -> str:
    """What first breaks the schema, and where, such as ``seed: no integer``; "" for nothing.

    >>> first_violation({"seed": 1.5}, {"properties": {"seed": {"type": "integer"}}})
    'seed: no integer'
    """
    where = f"{place}: " if place else ""
    if "const" in schema and document != schema["const"]:
        return f"{where}not {schema['const']!r}"
    if "enum" in schema and document not in schema["enum"]:
        return f"{where}none of {', '.join(map(str, schema['enum']))}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_of(document, kind) for kind in kinds):
        return f"{where}no {' or '.join(kinds)}"
    if _is_of(document, "number") and document < schema.get("minimum", -math.inf):
        return f"{where}below {schema['minimum']}"
    if isinstance(document, list):
        return _first_of_items(document, schema, place, where)
    return _first_of_members(document, schema, place) if isinstance(document, dict) else ""


def _is_of(document: Any, kind: str) -> bool:
    if isinstance(document, bool) or (isinstance(document, float) and not math.isfinite(document)):
        return False
    return isinstance(document, TYPES[kind])


def _first_of_items(document: list[Any], schema: Mapping[str, Any], place: str, where: str) -> str:
    if len(document) < schema.get("minItems", 0):
        return f"{where}fewer than {schema['minItems']} items"
    items = schema.get("items", {})
    found = (first_violation(item, items, f"{place}[{i}]") for i, item in enumerate(document))
    return next(filter(None, found), "")


def _first_of_members(document: dict[str, Any], schema: Mapping[str, Any], place: str) -> str:
    prefix = f"{place}." if place else ""
    for name in schema.get("required", ()):
        if name not in document:
            return f"{prefix}{name}: missing"
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, value in document.items():
        inner = properties.get(name, others)
        if inner is False:
            return f"{prefix}{name}: unknown"
        if inner is not True and (found := first_violation(value, inner, f"{prefix}{name}")):
            return found
    return ""
