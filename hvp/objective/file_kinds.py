"""What a file is, from its status and its first bytes. A pipe is not opened, so none blocks."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

KERAS = "a .keras file"
NPZ = "an .npz file"
NPY = "a single array, as np.save writes it,"
HDF5 = "an HDF5 file"
MISSING = "no file"
DIRECTORY = "a directory"
PIPE = "a pipe"
UNREADABLE = "an unreadable file"
UNKNOWN = "a file of unknown kind"

# What a path is that is no regular file, in the words of the status.
SPECIAL = (
    (stat.S_ISDIR, DIRECTORY),
    (stat.S_ISFIFO, PIPE),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"\x93NUMPY", NPY),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80", "a pickle"),
    (b"PAR1", "a Parquet file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer in the place of the file"),
)
NUM_FIRST_BYTES = 2048
# Control characters do not appear in text, but for those of white space.
CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f"))


def kind_of(path: Path) -> str:
    """What a file is, as a noun: "a directory", "a CSV file"; `MISSING` where there is none."""
    try:
        mode = path.stat().st_mode
        for is_kind, name in SPECIAL:
            if is_kind(mode):
                return name
        with path.open("rb") as file:
            start = file.read(NUM_FIRST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"{UNREADABLE} ({error.strerror})"
    if not start:
        return "an empty file"
    if start.startswith(b"PK"):
        return _archive(path)
    for signature, name in SIGNATURES:
        if start.startswith(signature):
            return name
    return UNKNOWN if set(start) & set(CONTROL) else _text(start)


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # the reader of the directory raises many kinds
        return "a damaged zip archive"
    if {"config.json", "metadata.json"} <= set(names):
        return KERAS
    if names and all(name.endswith(".npy") for name in names):
        return NPZ
    return "a zip archive of other things" if names else "an empty zip archive"


def _text(start: bytes) -> str:
    lines = start.splitlines()[:3]
    for separator in (b",", b";", b"\t"):
        counts = {line.count(separator) for line in lines}
        if len(lines) > 1 and len(counts) == 1 and counts != {0}:
            return "a CSV file"
    return "a text file"
