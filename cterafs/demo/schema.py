"""The XML of the portal's management API: `<obj class=…><att id="name"><val>…</val></att></obj>`, `<list>`, `<val>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

Value: TypeAlias = "str | bool | int | Sequence[Value] | Mapping[str, Value] | None"

MAX_DEPTH = 20
"""Queries nest five deep."""


class NotSchema(ValueError):
    """Not XML, or not of this grammar."""


def load(text: bytes) -> Value:
    """What a request says; all values are text.

    Raises:
        NotSchema: it cannot be read.
    """
    if b"<!" in text:  # a document type could declare entities that expand without end
        raise NotSchema("document types are not accepted")
    try:
        return _value(fromstring(text), MAX_DEPTH)  # noqa: S314  # entities are refused above
    except ParseError as error:
        raise NotSchema(str(error)) from None


def _value(element: Element, depth: int) -> Value:
    if depth == 0:
        raise NotSchema("nested too deeply")
    match element.tag:
        case "val":
            return element.text or ""
        case "list":
            return [_value(member, depth - 1) for member in element]
        case "obj":
            return {
                attribute.get("id", ""): _value(attribute[0], depth - 1) if len(attribute) else None
                for attribute in element
            }
    raise NotSchema(f"<{element.tag}>")


def dump(value: Value, name: str = "") -> bytes:
    """An answer; `name` becomes the class of the outermost object. None is an empty body."""
    if value is None:
        return b""
    parent = Element("answer")
    _append(parent, value)
    if name:
        parent[0].set("class", name)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + tostring(parent[0])


def _append(parent: Element, value: Value) -> None:
    if isinstance(value, Mapping):
        element = SubElement(parent, "obj")
        for key, member in value.items():
            _append(SubElement(element, "att", id=key), member)
    elif isinstance(value, str | int):
        SubElement(parent, "val").text = str(value).lower() if isinstance(value, bool) else str(value)
    elif value is not None:
        element = SubElement(parent, "list")
        for member in value:
            _append(element, member)
