"""The grammar of the portal's management API: `<obj class=…><att id=…><val>…`, both ways. Pure.

    value  = val | list | obj
    val    = <val>text</val>
    list   = <list>value*</list>
    obj    = <obj class="…"><att id="name">value?</att>*</obj>

Values stay text: whoever asked knows what is a number. The names are the portal's own, as its Python SDK shows them.

A document type declaration is refused, and with it every entity but XML's own five, so nothing can expand.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from xml.parsers import expat

from cterafs.errors import ProtocolError

# Answers nest obj, att and list about ten deep; the bound keeps whatever walks the result off the recursion limit.
_MAX_DEPTH = 100
# A page of cloud folders has some hundreds; this many take about 100 MB.
_MAX_ELEMENTS = 1_000_000
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class XmlObject:
    """An `<obj>`: its attributes by name, and its class, if it tells one."""

    attributes: Mapping[str, Value] = field(default_factory=dict)
    class_name: str | None = None

    def text(self, name: str) -> str | None:
        """The text of the attribute `name`; None if it is missing, empty, or not a plain value."""
        value = self.attributes.get(name)
        return value or None if isinstance(value, str) else None


Value: TypeAlias = "str | Sequence[Value] | XmlObject | None"


def parse(raw: bytes) -> Value:
    """The value that the document `raw` holds; None for an empty body or an empty `<att>`.

    Raises:
        ProtocolError: it is not well-formed, declares a document type, or is of another grammar.
    """
    if not raw.strip():
        return None
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, ValueError, LookupError):  # the latter two: encodings that Python does not have
        raise ProtocolError("the portal's answer is not well-formed XML") from None
    return builder.value


def serialise(value: Value) -> bytes:
    """`value` as a document.

    Raises:
        ValueError: a text holds a character that XML has no way to write.
    """
    return "".join(_markup(value)).encode()


def _markup(value: Value) -> list[str]:
    if isinstance(value, str):
        return ["<val>", _escape(value), "</val>"]
    if isinstance(value, XmlObject):
        named = f' class="{_escape(value.class_name)}"' if value.class_name else ""
        inside = (
            part
            for name, attribute in value.attributes.items()
            for part in (f'<att id="{_escape(name)}">', *_markup(attribute), "</att>")
        )
        return [f"<obj{named}>", *inside, "</obj>"]
    if value is None:
        return []
    return ["<list>", *(part for item in value for part in _markup(item)), "</list>"]


def _escape(text: str) -> str:
    if bad := _NOT_XML.search(text):
        raise ValueError(f"XML cannot hold the character {bad[0]!a}")
    return html.escape(text)


@dataclass(slots=True)
class _Element:
    """An element that is open; `value` is what its children have made of it."""

    tag: str
    attributes: Mapping[str, str]
    text: list[str] = field(default_factory=list)
    items: list[Value] = field(default_factory=list)
    named: dict[str, Value] = field(default_factory=dict)

    def finished(self) -> Value:
        match self.tag:
            case "val":
                return "".join(self.text).strip()
            case "list":
                return self.items
            case "obj":
                return XmlObject(self.named, self.attributes.get("class") or None)
            case _:  # att
                return self.items[-1] if self.items else None


class _Builder:
    """Makes the value from expat's events."""

    def __init__(self) -> None:
        self.value: Value = None
        self._open: list[_Element] = []
        self._count = 0

    def doctype(self, *_: object) -> None:
        raise ProtocolError("the portal's XML declares a document type, which is refused")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > _MAX_ELEMENTS or len(self._open) >= _MAX_DEPTH:
            raise ProtocolError("the portal's XML is too large or nested too deeply")
        if tag not in {"val", "list", "obj", "att"}:
            raise ProtocolError("the portal's answer is not of its management API's grammar")
        self._open.append(_Element(tag, attributes))

    def characters(self, text: str) -> None:
        self._open[-1].text.append(text)

    def end(self, _tag: str) -> None:
        element = self._open.pop()
        value = element.finished()
        if not self._open:
            self.value = value
        elif element.tag == "att":
            self._open[-1].named[element.attributes.get("id", "")] = value
        else:
            self._open[-1].items.append(value)
