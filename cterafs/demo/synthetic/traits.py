"""Names, sizes, times and access lists of synthetic objects: functions of 64 bits drawn for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

_MASK = (1 << 64) - 1

SIZES = 4096
"""Different sizes that files have."""

_FIRST = ("Annual", "Quarterly", "Project", "Client", "Draft", "Final", "Meeting", "Budget", "Site", "Master",
          "Vendor", "Internal", "Marketing", "Legal", "Payroll", "Travel", "Safety", "Design", "Sales", "Training",
          "Audit", "Board", "Research", "Support", "Old", "New", "Signed", "Approved", "Monthly", "Weekly", "Regional",
          "Product")  # fmt: skip
_SECOND = ("Report", "Plan", "Notes", "Invoice", "Contract", "Summary", "Presentation", "Minutes", "Drawing",
           "Forecast", "Agreement", "Proposal", "Checklist", "Photos", "Schedule", "Specification", "Survey",
           "Statement", "Letter", "Archive", "Backup", "Template", "Policy", "Review", "Analysis", "Estimate",
           "Order", "Receipt", "Manual", "Brochure", "Timesheet", "Correspondence")  # fmt: skip
_ENDINGS = (".docx", ".xlsx", ".pdf", ".pptx", ".pdf", ".txt", ".csv", ".docx", ".msg", ".jpg", ".dwg", ".zip", ".xml",
            ".png", ".xlsx", ".mp4")  # fmt: skip
_FOREIGN = ("Übersicht", "Verträge für März", "Größe und Straße", "Résumé détaillé", "Año fiscal", "Łódź i Gdańsk",
            "İstanbul şubesi", "Отчёт за квартал", "Ετήσια αναφορά", "דוח שנתי", "تقرير سنوي", "四半期報告書",
            "项目计划修订", "회의록", "Smørrebrød", "📷 Teamausflug")  # fmt: skip
_DEPARTMENTS = ("Finance", "Engineering", "Marketing", "Legal", "Human Resources", "Operations", "Research", "Sales",
                "Facilities", "Media", "Projects", "Archive")  # fmt: skip

_DAYS = [str(date(2013, 1, 1) + timedelta(days=day)) for day in range(4096)]
_TIMES = [
    f"T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{second * 997 % 1_000_000:06}Z"
    for second in range(0, 86_400, 21)
]
_ACLS = [
    f"O:BAG:DUD:PAI(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;S-1-5-21-1004336348-1177238915-682003330-{1000 + group})"
    for group in range(16)
]


def draw(number: int, seed: int) -> int:
    """64 bits that belong to a number, and look like chance."""
    bits = (number * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03) & _MASK
    bits = (bits ^ bits >> 31) * 0xD6E8FEB86659FD93 & _MASK
    return bits ^ bits >> 32


def _words(bits: int, token: int) -> str:
    return f"{_FIRST[bits >> 8 & 31]} {_SECOND[bits >> 13 & 31]} {token}{_ENDINGS[bits >> 18 & 15]}"


def _camera(bits: int, token: int) -> str:
    return f"IMG_{_DAYS[bits >> 8 & 4095]}_{token:04}.jpg"


def _slug(bits: int, token: int) -> str:
    first, second = _FIRST[bits >> 8 & 31].lower(), _SECOND[bits >> 13 & 31].lower()
    return f"{first}-{second}-v{bits >> 22 & 7}-{token}{_ENDINGS[bits >> 18 & 15]}"


def _numbered(bits: int, token: int) -> str:
    return f"{token:05}_{_SECOND[bits >> 13 & 31]}_{_DAYS[bits >> 22 & 4095]}.pdf"


def _scan(bits: int, token: int) -> str:
    return f"Scan {_DAYS[bits >> 8 & 4095]} {token}.pdf"


def _digest(bits: int, token: int) -> str:
    return f"{token:x}{bits:016x}.dat"


def _title(bits: int, token: int) -> str:
    first, second, day = _FIRST[bits >> 8 & 31], _SECOND[bits >> 13 & 31], _DAYS[bits >> 22 & 4095]
    return f"{first} {second} for the review by all departments, with the changes of {day} ({token}).pptx"


def _foreign(bits: int, token: int) -> str:
    return f"{_FOREIGN[bits >> 8 & 15]} {token}{_ENDINGS[bits >> 18 & 15]}"


def _bare(bits: int, token: int) -> str:
    return f".{_SECOND[bits >> 13 & 31].lower()}{token}" if bits & 256 else f"{_FIRST[bits >> 9 & 31].upper()}{token}"


# Each style puts the token where no other style could have written it: names that differ in nothing else differ.
_STYLES: Sequence[Callable[[int, int], str]] = (
    *(_words, _words, _words, _words, _words, _camera, _camera, _camera),
    *(_slug, _slug, _numbered, _scan, _digest, _title, _foreign, _bare),
)


def file_name(bits: int, token: int) -> str:
    """The name of a file; another token gives another name, whatever the bits."""
    return _STYLES[bits & 15](bits, token)


def directory_name(bits: int, token: int) -> str:
    """The name of a directory; another token gives another name, whatever the bits."""
    style = bits & 3
    if style == 0:
        return f"{_FIRST[bits >> 8 & 31]} {_SECOND[bits >> 13 & 31]} {token}"
    if style == 1:
        return f"{token:02} {_SECOND[bits >> 13 & 31]}"
    if style == 2:
        return f"{_DAYS[bits >> 8 & 4095][:7]}_{token}"
    return f"{_FOREIGN[bits >> 8 & 15]} ({token})"


def folder_name(index: int) -> str:
    """The name of a cloud folder."""
    again, which = divmod(index, len(_DEPARTMENTS))
    return f"{_DEPARTMENTS[which]} {again + 1}" if again else _DEPARTMENTS[which]


def timestamp(bits: int) -> str:
    """A time, ISO 8601 with microseconds."""
    return _DAYS[bits >> 30 & 4095] + _TIMES[bits >> 42 & 4095]


def acl(bits: int) -> str:
    """An access list, SDDL; there are few different ones."""
    return _ACLS[bits >> 50 & 15]


def size_table(median: int) -> list[int]:
    """The sizes that files have, evenly spread over their logarithms; one in 4,096 is empty."""
    return [0, *(int(median * 2.0 ** (20 * (index / SIZES - 0.5))) for index in range(1, SIZES))]


def size_index(bits: int) -> int:
    """Which of them a file has."""
    return bits >> 52
