"""Bytes of data files as text: what is packed is unpacked, and the encoding is proven, never guessed.

    1. a byte order mark says UTF-8, UTF-16 or UTF-32
    2. strict UTF-8; most other encodings cannot pass for it
    3. UTF-16 without a mark: a good part of the bytes is zero, all of them at even or all at odd places
    4. cp1252, what Windows writes in western Europe. Every byte has a meaning there, so that decoding proves nothing:
       the letters beyond ASCII must be those of western languages, and signs must not be within words

Whatever passes none of these is refused with the name of what it looks like. Files are known by their first bytes, not
by their names: gzip and Zstandard are unpacked, archives, workbooks and pages of the web are named and refused.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, cast

from bertshrink.errors import UserError

PACKED = (".gz", ".zst")
"""What a data file's name may end with besides its kind."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FOREIGN = {
    b"PK\x03\x04": ("a ZIP archive (or a workbook: .xlsx, .ods)", "unpack it; save a workbook as CSV (UTF-8)"),
    b"\xd0\xcf\x11\xe0": ("a workbook or document of Microsoft Office (.xls)", "save it as CSV (UTF-8)"),
    b"BZh": ("packed by bzip2", "unpack it, or pack it with gzip"),
    b"\xfd7zXZ": ("packed by xz", "unpack it, or pack it with gzip"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"ARROW1": ("an Arrow file", "write it as Parquet"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"%PDF-": ("a PDF", "export the table as CSV"),
    b"version https://git-lfs": ("a git LFS pointer, not the data", "fetch the data: git lfs pull"),
    b"<!DOCTYPE html": ("a page of the web, not the data", "download the file itself (the `raw` link)"),
    b"<!doctype html": ("a page of the web, not the data", "download the file itself (the `raw` link)"),
    b"<html": ("a page of the web, not the data", "download the file itself (the `raw` link)"),
}
PARQUET = b"PAR1"
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8-sig", ""),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_CHUNK = 1 << 22


def check_plain(path: Path) -> None:
    """Prove that a path is a file that can be read, without opening what would wait for a writer.

    Raises:
        UserError: nothing there, a folder, a pipe, a device, or an empty file.
    """
    if path.is_dir():
        raise UserError(f"`{path}` is a folder, not a file", where=str(path), hint="name a file in it")
    if not path.exists():
        raise UserError(f"there is no file `{path}`", where=str(path), hint="check the path")
    if not path.is_file():
        hint = "data is read more than once: write it into a file first"
        raise UserError(f"`{path}` is a pipe or a device, not a file", where=str(path), hint=hint)
    if path.stat().st_size == 0:
        raise UserError(f"`{path}` is empty", where=str(path), hint="give a file with at least one text")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a data file, unpacked.

    Raises:
        UserError: no plain file, one that may not be read, one that is something else than data as text, or damaged.
    """
    check_plain(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            start = file.read(24)
            file.seek(0)
        except OSError as error:
            what = f"`{path}` cannot be read: {error.strerror or error}"
            raise UserError(what, where=str(path), hint="check who may read it") from None
        for magic, (what, hint) in _FOREIGN.items():
            if start.startswith(magic):
                raise UserError(f"`{path}` is {what}", where=str(path), hint=hint)
        unpacked: IO[bytes] = file
        if start.startswith(_GZIP):
            unpacked = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
        elif start.startswith(_ZSTD):
            import pyarrow

            stream = stack.enter_context(pyarrow.CompressedInputStream(file, "zstd"))
            unpacked = cast("IO[bytes]", stack.enter_context(BufferedReader(stream, _CHUNK)))
        try:
            yield unpacked
        except (OSError, EOFError, zlib.error) as error:  # what is packed ends too early or is damaged; the disk fails
            what = f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}"
            hint = "it is damaged or incomplete: fetch or make it again"
            raise UserError(what, where=str(path), hint=hint) from None


def read_bytes(path: Path) -> bytes:
    """All of a data file, unpacked; errors as in `open_bytes`, or there is nothing in it."""
    with open_bytes(path) as file:
        data = file.read()
    if not data.strip():
        raise UserError(f"`{path}` is empty", where=str(path), hint="give a file with at least one text")
    return data


def read_text(path: Path) -> tuple[str, str]:
    """All of a file as text, and what its encoding was where a user should know; errors as in `read_bytes`.

    Raises:
        UserError: no encoding can be proven, or NUL bytes in the text.
    """
    return decode(read_bytes(path), path)


def decode(data: bytes, path: Path) -> tuple[str, str]:
    """Bytes as text, and what their encoding was where a user should know; `path` is for messages.

    Raises:
        UserError: no encoding can be proven, or NUL bytes in the text.
    """
    encoding, how = _encoding_of(data, path)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _broken(data, error.start, how or "UTF-8", path) from None
    if "\0" in text:
        raise _nul(text.count("\n", 0, text.index("\0")) + 1, path)
    return text, how


def read_lines(path: Path) -> Iterator[str]:
    """A file of any size line by line, without the ends of the lines: LF, CR LF or CR. Errors as in `read_text`."""
    stat = path.stat() if path.is_file() else None
    encoding = _proven(path, stat.st_size if stat else 0, stat.st_mtime_ns if stat else 0)
    with open_bytes(path) as file, TextIOWrapper(file, encoding=encoding) as lines:
        for line in lines:
            yield line.rstrip("\n")


def how_written(path: Path) -> str:
    """What encoding `read_lines` reads a file in, where a user should know."""
    status = path.stat()
    encoding = _proven(path, status.st_size, status.st_mtime_ns)
    return "" if encoding.startswith("utf-8") else encoding.upper().replace("CP", "cp")


@lru_cache(maxsize=64)
def _proven(path: Path, size: int, changed: int) -> str:
    """The encoding of a file of any size; `size` and `changed` are its state, for the cache."""
    with open_bytes(path) as file:
        try:
            data = file.read(_CHUNK)
            marked = next((name for mark, name, _ in _MARKS if data.startswith(mark)), "utf-8")
            if marked.startswith("utf-8"):
                decoder = codecs.getincrementaldecoder("utf-8")()
                chunk = data
                while True:
                    if b"\0" in chunk or b"\x1b$" in chunk:
                        break
                    decoder.decode(chunk, final=not chunk)
                    if not chunk:
                        return marked
                    chunk = file.read(_CHUNK)
        except UnicodeDecodeError:
            pass
    data = read_bytes(path)
    decode(data, path)
    return _encoding_of(data, path)[0]


def _nul(line: int, path: Path) -> UserError:
    hint = "it is damaged or not a text file: fix it"
    return UserError(f"line {line} of `{path}` holds a NUL byte", where=f"{path}:{line}", hint=hint)


def _broken(data: bytes, at: int, encoding: str, path: Path) -> UserError:
    line = data.count(b"\n", 0, at) + 1
    return UserError(
        f"`{path}` is {encoding}, but line {line} contains invalid bytes (0x{data[at]:02x})",
        where=f"{path}:{line}",
        hint="fix the line, or make the file again with one encoding throughout",
    )


def _encoding_of(data: bytes, path: Path) -> tuple[str, str]:
    """(Python's name of the encoding, what to tell the user)."""
    for mark, name, shown in _MARKS:
        if data.startswith(mark):
            return name, shown
    if b"\0" in data:
        if wide := _utf16(data):
            return wide, "UTF-16 without a byte order mark"
        raise _nul(data.count(b"\n", 0, data.index(b"\0")) + 1, path)
    if b"\x1b$" in data:
        raise _refusal(data, path)
    try:
        data.decode("utf-8")
        return "utf-8", ""
    except UnicodeDecodeError as error:
        high = sum(data.count(byte) for byte in range(0x80, 0x100))
        if 2 * len(data.decode("utf-8", "ignore").encode("utf-8")) - 2 * len(data) + high > 0:
            raise _broken(data, error.start, "UTF-8", path) from None  # most bytes beyond ASCII are proper UTF-8
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise _refusal(data, path) from None
    if not is_western(text):
        raise _refusal(data, path)
    return "cp1252", "cp1252"


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark, by where its zeros are: every character of ASCII has one."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if len(data) % 2 or max(even, odd) < 0.2 * len(data) / 2 or min(even, odd) > 0.001 * max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _refusal(data: bytes, path: Path) -> UserError:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_CHUNK]).best()
    name = best.encoding if best is not None else None
    looks = f": it looks like {name}" if name not in (None, "utf_8", "ascii", "cp1252") else ""
    return UserError(
        f"`{path}` is not UTF-8, and not certainly cp1252{looks}",
        where=str(path),
        hint=f"save it as UTF-8, for example: iconv -f {(name or 'ENCODING').replace('_', '-')} -t utf-8 OLD > NEW",
    )


_ALPHABETS = (
    "äöüßàâæçéèêëîïôœùûÿìò",  # German, French, Italian, Dutch
    "áéíóúüñçàèòï",  # Spanish, Catalan
    "áâãàçéêíóôõúü",  # Portuguese
    "áéèëêïíóöúü",  # Dutch with its accents
    "åäöæøéüèàô",  # Swedish, Danish, Norwegian, Finnish
    "áéíóúýþæöð",  # Icelandic
)
_LOANED = "éèêëïçñâôöüäàíáóúßå"
"""Beyond ASCII, in the few names and words that other languages lend to English."""
_FOREIGN_SHARE = 0.02
"""Of the letters beyond ASCII, so many may be of other languages: names. Czech, Hungarian, Polish, Baltic and Turkish
texts read as cp1252 have seven in a hundred and more."""
_WITHIN_WORDS = re.compile(  # what the letters of cp850, cp1250 and Mac Roman become
    # a sign between letters, but for apostrophes, dashes, dots, soft hyphens, powers and ordinals
    r"(?<=[^\W\d_])[^\w\s\x00-\x7f\u2018\u2019\u2013\u2014\xb7\xad\xb4\u2026²³º°](?=[^\W\d_])"
    r"|(?<=[^\W\d_])[\u201a\u201e¿¡¹¤¦¨\xb8]"  # what does not end a word
    r"|(?<![^\W\d_][^\W\d_])(?<=[^\W\d_mM])[²³]|(?<=[^\W\d_][^\W\d_])(?<![kcdm]m)[²³]"  # powers of no metre
    r"|(?<=[a-zß-öø-ÿ])[À-ÖØ-ÞŠŽŒŸ]"  # a capital after a small letter
)


def is_western(text: str) -> bool:
    """Whether what cp1252 makes of bytes beyond ASCII is text of a western language."""
    beyond = Counter(re.findall(r"[^\x00-\x7f]", text))
    letters = Counter({c: n for c, n in beyond.items() if c.isalpha() and c not in "ªºµ"})
    small = Counter[str]()
    for letter, count in letters.items():
        small[letter.lower()] += count
    total = sum(small.values())
    alphabets = list(_ALPHABETS)
    if total < 0.005 * sum(map(text.count, "eanistrom")):
        alphabets.append(_LOANED)
    strange = min(sum(n for c, n in small.items() if c not in alphabet) for alphabet in alphabets)
    misplaced = sum(1 for _ in _WITHIN_WORDS.finditer(text))
    return strange <= _FOREIGN_SHARE * total and misplaced <= 0.005 * sum(beyond.values())
