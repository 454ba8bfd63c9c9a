"""Zip archives from strangers: what their members declare is weighed before any of them is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

from neuro.errors import FileError

TOTAL = 1 << 32
RATIO = 1100
"""Declared over stored bytes; deflate itself cannot exceed 1032."""
SLACK = 1 << 26
"""Expanded bytes that need no reason: well-compressed zeros are fine while they are few."""
MOST_DECLARED = 100
"""Declared over file size for the archive as a whole, beyond `SLACK`."""
MEMBERS = 100_000


def checked_members(archive: zipfile.ZipFile, path: str | Path) -> list[zipfile.ZipInfo]:
    """All members; FileError for bombs, overlapping or repeated members, encryption and paths that leave the archive.

    Sizes count as declared, and zipfile never expands beyond what is declared.
    """
    members = archive.infolist()
    size = Path(path).stat().st_size
    stored = sum(member.compress_size for member in members)
    declared = sum(member.file_size for member in members)

    def refuse(rule: str) -> FileError:
        return FileError(f"{path}: {rule}; do not use this file unless its author can explain it")

    if len(members) > MEMBERS:
        raise refuse(f"has {len(members)} members, more than {MEMBERS}")
    if len({member.filename for member in members}) != len(members):
        raise refuse("has two members of one name")
    if stored > size:
        raise refuse("its members overlap")
    if declared > TOTAL or declared > MOST_DECLARED * size + SLACK:
        raise refuse(f"its members declare {declared} bytes in a file of {size}")
    for member in members:
        name = member.filename
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise refuse(f"member {name!r} leaves the archive")
        if member.flag_bits & 1:
            raise refuse(f"member {name!r} is encrypted")
        if member.file_size > RATIO * member.compress_size:
            raise refuse(f"member {name!r} declares {member.file_size} bytes but stores {member.compress_size}")
    return members
