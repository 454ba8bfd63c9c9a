"""Checksummed, resumable downloads: bytes gather in a .part file, which gets its name once its content is verified."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from neuro.errors import DataError

CHUNK = 2**16
ATTEMPTS = 3
TIMEOUT_S = 30.0
HEADER_ALLOWANCE = 2**16


@dataclass(frozen=True)
class RemoteFile:
    """A file known by its unpacked content: `bytes` and `sha256` of what is inside `name`.gz."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Remote:
    """Where a data set can be had: its files, and mirrors (URL prefixes, tried in order) that serve each as .gz."""

    files: tuple[RemoteFile, ...]
    mirrors: tuple[str, ...]


def fetch(remote: Remote, folder: Path, timeout: float = TIMEOUT_S) -> None:
    """Bring every file of `remote` into `folder` as name.gz, except those already there. DataError if no mirror can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in remote.files:
            if not (folder / f"{file.name}.gz").exists():
                _fetch_file(file, remote.mirrors, folder / f"{file.name}.gz", timeout)
    except OSError as error:
        raise DataError(f"{folder}: the download cannot be written there ({error}); choose another place") from error


def _fetch_file(file: RemoteFile, mirrors: tuple[str, ...], path: Path, timeout: float) -> None:
    part = path.with_name(path.name + ".part")
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{path.name}"
        reason = "the connection broke off"
        for _ in range(ATTEMPTS):
            try:
                whole = _append(url, part, file.bytes + HEADER_ALLOWANCE, timeout)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}"
                break
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
                continue
            if not whole:
                continue
            if _is(file, part):
                os.replace(part, path)
                return
            # The start may stem from another mirror or an older try: the next attempt begins from nothing.
            part.unlink()
            reason = "its content is not the published one (SHA-256)"
        failures.append(f"{url}: {reason}")
    raise DataError(f"download failed; {'; '.join(failures)}; try again, or put {path.name} into {path.parent} by hand")


def _append(url: str, part: Path, most: int, timeout: float) -> bool:
    """Continue `part` from where it ends; True once the server has nothing more to give. Never beyond `most` bytes."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond what we have: let the checksum judge it
            return True
        raise
    with response:
        span = re.match(r"bytes (\d+)-\d*/(\d+)", response.headers.get("Content-Range", ""))
        resumes = response.status == 206 and span is not None and int(span[1]) == have
        if response.status == 206 and not resumes:
            part.unlink(missing_ok=True)
            return False
        length = response.headers.get("Content-Length", "")
        start = have if resumes else 0
        total = int(span[2]) if resumes and span else int(length) if length.isdigit() else None
        if total is not None and total > most:
            raise http.client.HTTPException(f"it offers {total:,} bytes where at most {most:,} make sense")
        with part.open("ab" if resumes else "wb") as out, _progress(part.stem, start, total) as advance:
            at = start
            while at <= most and (chunk := response.read(CHUNK)):
                out.write(chunk)
                at += len(chunk)
                advance(at)
    if at > most:
        part.unlink()
        raise http.client.HTTPException(f"it sends more than the {most:,} bytes that make sense")
    return total is None or at >= total


def _is(file: RemoteFile, part: Path) -> bool:
    digest = hashlib.sha256()
    seen = 0
    try:
        with gzip.open(part) as unpacked:
            while seen <= file.bytes and (chunk := unpacked.read(CHUNK)):
                digest.update(chunk)
                seen += len(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    return seen == file.bytes and digest.hexdigest() == file.sha256


@contextmanager
def _progress(name: str, start: int, total: int | None) -> Iterator:
    """A bar on stderr where a person watches, silence elsewhere."""
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda at: bar.update(task, completed=at)
