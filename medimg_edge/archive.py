"""A bundle on its way from machine to machine: a .zip or a folder, and nothing in it is trusted.

``unpack`` looks at all that a source says of its files before it writes the first one. Of zips it
reads the plain part that every packer writes (stored or deflated, one file after the other, both of
its lists equal) and refuses the rest: what two readers could understand in two ways, this one does
not read. A zip of ``pack`` ends in its own SHA-256, so that no byte of it can change unseen.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from medimg_edge.bundle import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURES, Bundle, is_safe, walk
from medimg_edge.errors import ArchiveInvalid, BundleError, BundleMissing, FilesDiffer, WriteError
from medimg_edge.manifest import decode
from medimg_edge.ssh_signature import MAX_BYTES as MAX_SIGNATURE_BYTES
from medimg_edge.trust import MAX_SIGNATURES, SUFFIX
from medimg_edge.whole_file import whole_file

Progress = Callable[[str, int, int], None]
"""Told what is done, how far, and of how much."""

MAX_ENTRIES = 1000
MAX_BYTES = 512 * 2**20
"""Of all files together, unpacked."""
MAX_RATIO = 200
"""How much larger a file may be than its compressed form, where it is larger than a chunk."""
MAX_PATH = 240
"""Bytes of a path, so that it fits below any folder."""

_SIGNATURE = re.compile(rf"{SIGNATURES}/[A-Za-z0-9._-]{{1,60}}{re.escape(SUFFIX)}")
_CHUNK = 2**20
_MARK = b"medimg-edge bundle, SHA-256 of all before: "
_COMMENT = len(_MARK) + 64


@dataclass(frozen=True)
class _Entry:
    """A file of a source: its path in the bundle, its size, and how its bytes are had."""

    name: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


def unpack(source: Path, folder: Path, progress: Progress | None = None) -> None:
    """Write the bundle in a .zip or a folder into a new folder.

    A zip holds the files of one bundle at its top, or in one folder of any name. What is written
    has the names and sizes that its manifest lists, and may have signatures; ``Bundle`` checks the
    rest. Raises BundleMissing, ArchiveInvalid (zip), FilesDiffer (folder), ManifestInvalid,
    SchemaUnknown, RevisionUnknown; OSError where the folder cannot be written.
    """
    if os.path.isdir(source):
        _write(_of_folder(source), folder, progress, FilesDiffer)
        return
    with _opened(source) as (file, size):
        _write(_of_zip(file, size), folder, progress, ArchiveInvalid)


def pack(bundle: Bundle, file: Path, progress: Progress | None = None) -> None:
    """Write a bundle with its signatures as a .zip: the same bytes on every machine.

    Raises FilesDiffer, WriteError.
    """
    if (file.parent.resolve() / file.name).is_relative_to(bundle.path.resolve()):
        raise WriteError(f"{file} lies in the bundle itself. Name a file elsewhere.")
    entries = {each.name: each for each in _of_folder(bundle.path, linked=True)}
    _require_names(list(entries), FilesDiffer)
    _require_listed(list(entries.values()), _content(bundle, entries[MANIFEST]), FilesDiffer)
    names = [MANIFEST, *sorted(set(entries) - {MANIFEST})]
    with whole_file(file) as written:
        try:
            with zipfile.ZipFile(written, "w") as packed:
                for done, name in enumerate(names):
                    if progress:
                        progress("packing", done, len(names))
                    packed.writestr(_described(name), _content(bundle, entries[name]))
                packed.comment = bytes(_COMMENT)
            _seal(written)
        except OSError as error:
            raise WriteError(f"{file} was not written: {error.strerror}.") from error


def _described(name: str) -> zipfile.ZipInfo:
    described = zipfile.ZipInfo(name)
    described.create_system = 3  # Unix, which the mode is of
    described.external_attr = (stat.S_IFREG | 0o644) << 16
    return described


def _content(bundle: Bundle, entry: _Entry) -> bytes:
    """What was promised, and what was promised it."""
    if entry.name in bundle.entries:
        return bundle.read(entry.name)
    data = b"".join(entry.chunks())
    if entry.name == MANIFEST and hashlib.sha256(data).hexdigest() != bundle.hash:
        raise FilesDiffer("manifest.json changed while it was packed.")
    return data


def _seal(file: IO[bytes]) -> None:
    end = file.seek(-_COMMENT, os.SEEK_END)
    file.seek(0)
    digest = _digest(file, end)
    file.seek(end)
    file.write(_MARK + digest)


def _digest(file: IO[bytes], end: int) -> bytes:
    found = hashlib.sha256()
    for chunk in _read(file, 0, end):
        found.update(chunk)
    return found.hexdigest().encode()


def _write(
    entries: list[_Entry], folder: Path, progress: Progress | None, kind: type[BundleError]
) -> None:
    """Check what is said of all entries, then write them. ``kind``: what to raise."""
    _require_names([each.name for each in entries], kind)
    named = {each.name: each for each in entries}
    manifest = named.get(MANIFEST)
    if manifest is None:
        raise BundleMissing("There is no manifest.json: this is no bundle of `medimg-edge export`.")
    if manifest.size > MAX_MANIFEST_BYTES:
        raise kind(f"manifest.json has more than the {MAX_MANIFEST_BYTES} bytes that are read.")
    _require_listed(entries, b"".join(manifest.chunks()), kind)
    folder.mkdir()
    for done, entry in enumerate(entries):
        if progress:
            progress("copying", done, len(entries))
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            for chunk in entry.chunks():
                file.write(chunk)


def _require_names(names: list[str], kind: type[BundleError]) -> None:
    """Paths that stay in their folder, and are different files on every system."""
    if len(names) > MAX_ENTRIES:
        raise kind(f"It holds more than {MAX_ENTRIES} files; no bundle does.")
    meant: dict[str, str] = {}
    for name in names:
        if not (is_safe(name) or name == MANIFEST or _SIGNATURE.fullmatch(name)):
            raise kind(f"It holds {name!r}, which has no place in a bundle.")
        if len(name.encode(errors="surrogateescape")) > MAX_PATH:
            raise kind(f"{name!r} is longer than {MAX_PATH} bytes.")
        path = PurePosixPath(name)
        for part in (path, *path.parents[:-1]):
            spelled = f"{part}" if part == path else f"{part}/"
            key = unicodedata.normalize("NFKC", f"{part}").casefold()
            other = meant.setdefault(key, spelled)
            if other != spelled:
                raise kind(f"{other!r} and {spelled!r} are the same file on some systems.")
    for name, count in Counter(names).items():
        if count > 1:
            raise kind(f"It holds {name!r} {count} times.")
    if sum(name.startswith(f"{SIGNATURES}/") for name in names) > MAX_SIGNATURES:
        raise kind(f"It holds more than {MAX_SIGNATURES} signatures.")


def _require_listed(entries: list[_Entry], manifest: bytes, kind: type[BundleError]) -> None:
    """Exactly what the manifest lists, in the sizes that it lists."""
    if sum(each.size for each in entries) > MAX_BYTES:
        raise kind(f"Its files have more than {MAX_BYTES >> 20} MiB together.")
    listed = {
        name: each.bytes for name, each in Bundle(Path(), decode(manifest), "").entries.items()
    }
    found = {each.name: each.size for each in entries if each.name != MANIFEST}
    for name, size in found.items():
        if _SIGNATURE.fullmatch(name):
            if size > MAX_SIGNATURE_BYTES:
                raise kind(f"{name!r} is larger than a signature can be.")
        elif name not in listed:
            raise kind(f"It holds {name!r}, and the manifest does not list it.")
        elif size != listed[name]:
            raise kind(f"{name!r} has {size} bytes; the manifest lists {listed[name]}.")
    if missing := sorted(set(listed) - set(found)):
        raise kind(f"{missing[0]!r} is missing from it. Get the bundle anew.")


def _of_folder(source: Path, *, linked: bool = False) -> list[_Entry]:
    """The files of a folder. linked: also those that have a second name elsewhere."""
    if not os.path.lexists(source / MANIFEST):
        raise BundleMissing(
            f"{source} is no bundle: it has no manifest.json. Give the folder that `medimg-edge "
            "export` wrote, or its .zip."
        )
    sizes = walk(source)
    signatures = source / SIGNATURES
    if os.path.lexists(signatures):
        sizes |= {f"{SIGNATURES}/{name}": size for name, size in walk(signatures).items()}
    folders = {f"{each}" for name in sizes for each in PurePosixPath(name).parents}
    for path, _, _ in os.walk(source):
        if (name := Path(path).relative_to(source).as_posix()) not in folders:
            raise FilesDiffer(f"{name!r} is an empty folder; a bundle has none.")
    return [
        _Entry(name, size, lambda name=name, size=size: _of_file(source / name, size, linked))
        for name, size in sizes.items()
    ]


def _of_file(path: Path, size: int, linked: bool) -> Iterator[bytes]:
    """The bytes of a regular file, in chunks, and no more than it had."""
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or (found.st_nlink > 1 and not linked):
                raise FilesDiffer(
                    f"{path} is a link to a file that has another name, too, by which it could be "
                    "changed. Copy the bundle, or pack it: `medimg-edge pack`."
                )
            if found.st_size != size:
                raise FilesDiffer(f"{path} changed while it was read.")
            yield from _read(file, 0, size)
    except OSError as error:
        raise FilesDiffer(f"{path} cannot be read: {error.strerror}.") from error


def _read(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    """So many bytes from there on, in chunks. Raises EOFError."""
    for at in range(start, start + size, _CHUNK):
        file.seek(at)
        wanted = min(_CHUNK, start + size - at)
        chunk = file.read(wanted)
        if len(chunk) != wanted:
            raise OSError(0, "it ends early")
        yield chunk


# A zip, as PKWARE's APPNOTE 6.3 describes it, without what a bundle does not need.

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_LEVEL, _UTF8 = 0x0006, 0x0800
"""Flags: how hard a packer tried, and that names are UTF-8."""
_TIMES, _NTFS, _OWNER = 0x5455, 0x000A, 0x7875
"""Extra fields that change neither names nor contents."""


class _Common(NamedTuple):
    """What both lists of a zip say of a file."""

    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int


class _Listed(NamedTuple):
    """A line of the central list."""

    common: _Common
    name: bytes
    offset: int
    attributes: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith(b"/")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A regular file and its size. What is wrong with it is said of it."""
    if not os.path.lexists(path):
        raise BundleMissing(f"There is no {path}. Give a .zip of `medimg-edge pack`, or a bundle.")
    try:
        if not os.path.isfile(path):
            raise ArchiveInvalid("It is no regular file.")
        with _reading():
            file = path.open("rb")
        with file:
            with _reading():
                size = file.seek(0, os.SEEK_END)
            yield file, size
    except ArchiveInvalid as error:
        raise ArchiveInvalid(
            f"{path} is not accepted: {error} Pack the bundle with `medimg-edge pack`, and copy it "
            "anew."
        ) from error


def _of_zip(file: IO[bytes], size: int) -> list[_Entry]:
    with _reading():
        count, start, end = _ending(file, size)
        listed = _central(b"".join(_read(file, start, end - start)), count)
        starts = _starts(file, listed, start)
    names = [_name(each) for each in listed]
    top = _top(names)
    entries, folders = [], set()
    for each, name in zip(listed, names, strict=True):
        if each.is_folder:
            folders.add(name.removeprefix(top))
        else:
            begin = starts[each.offset]
            entries.append(
                _Entry(
                    name.removeprefix(top),
                    each.common.size,
                    lambda each=each, begin=begin: _contents(file, begin, each.common),
                )
            )
    used = {f"{parent}/" for each in entries for parent in PurePosixPath(each.name).parents}
    if empty := sorted(folders - used - {""}):
        raise ArchiveInvalid(f"It holds {empty[0]!r}, an empty folder.")
    return entries


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiveInvalid(f"It cannot be read: {error.strerror}.") from error


def _ending(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """How many entries there are, and where the central list begins and ends."""
    if not _END.size <= size <= MAX_BYTES + MAX_ENTRIES * 2**12:
        raise ArchiveInvalid(f"{size} bytes are no .zip of a bundle.")
    last = min(size, _END.size + _COMMENT)
    tail = b"".join(_read(file, size - last, last))
    comment = tail[_END.size :] if tail[_END.size :].startswith(_MARK) else b""
    if comment and comment != _MARK + _digest(file, size - _COMMENT):
        raise ArchiveInvalid("It was changed or damaged after it was packed.")
    end = size - _END.size - len(comment)
    fields = _END.unpack(tail[-len(comment) - _END.size :][: _END.size])
    magic, disk, first, here, count, length, start, comment_length = fields
    if magic != b"PK\5\6" or comment_length != len(comment):
        raise ArchiveInvalid("It is no .zip, or something was added to its end.")
    if disk or first or here != count or not 1 <= count <= 2 * MAX_ENTRIES:
        raise ArchiveInvalid(f"It says that it has {count} entries, or is a part of a .zip.")
    if start + length != end or length > count * 2**11:
        raise ArchiveInvalid("Its list of files is not where it says that it is.")
    return count, start, end


def _central(data: bytes, count: int) -> list[_Listed]:
    listed, at = [], 0
    for _ in range(count):
        if len(data) - at < _CENTRAL.size:
            raise ArchiveInvalid("Its list of files ends early.")
        magic, _, *fields = _CENTRAL.unpack_from(data, at)
        common = _Common(*fields[:8])
        name, extra, comment, disk, internal, attributes, offset = fields[8:]
        at += _CENTRAL.size
        each = _Listed(common, data[at : at + name], offset, attributes)
        _require_extra(data[at + name : at + name + extra], extra)
        at += name + extra
        if magic != b"PK\1\2" or comment or disk or internal > 1:
            raise ArchiveInvalid("Its list of files is damaged, or says more than is read.")
        _require_plain(each)
        listed.append(each)
    if at != len(data):
        raise ArchiveInvalid("Its list of files is followed by something else.")
    return listed


def _require_extra(data: bytes, length: int) -> None:
    at = 0
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<2H", data, at)
        if kind not in (_TIMES, _NTFS, _OWNER):
            break
        at += 4 + size
    if at != length:
        raise ArchiveInvalid(
            "It says more of its files than is read, such as 64-bit sizes or a second name."
        )


def _require_plain(each: _Listed) -> None:
    """A regular file or a folder, of which all is said, in a compression that is read."""
    common = each.common
    kind = stat.S_IFMT(each.attributes >> 16)
    dos_folder, volume = each.attributes & 0x10, each.attributes & 0x08
    rules = [
        (
            not common.flags & ~(_LEVEL | _UTF8) and common.needed <= 20,
            f"is encrypted, or packed in a way that is not read (flags {common.flags:#x}, version "
            f"{common.needed})",
        ),
        (
            common.method in (_STORED, _DEFLATED),
            f"is packed by method {common.method}; stored and deflated are read",
        ),
        (
            kind in (0, stat.S_IFDIR if each.is_folder else stat.S_IFREG)
            and not volume
            and not (each.attributes >> 16) & 0o7000,
            "is a link or a device, or has rights of its own",
        ),
        (each.is_folder or not dos_folder, "is a folder that is named as a file"),
        (not (each.is_folder and common.size), "is a folder, and has a size"),
        (common.method != _STORED or common.packed == common.size, "has two sizes"),
        (
            common.size <= max(_CHUNK, MAX_RATIO * common.packed) and common.size <= MAX_BYTES,
            f"would have {common.size} bytes, of {common.packed}",
        ),
    ]
    for holds, problem in rules:
        if not holds:
            raise ArchiveInvalid(f"Its entry {each.name!r} {problem}.")


def _starts(file: IO[bytes], listed: list[_Listed], end: int) -> dict[int, int]:
    """Where the bytes of each entry begin, by its offset: one after the other, and no gap."""
    found, at = {}, 0
    for each in sorted(listed, key=lambda each: each.offset):
        if each.offset != at or at + _LOCAL.size > end:
            raise ArchiveInvalid("Something lies between its files, or before them.")
        magic, *fields, name, extra = _LOCAL.unpack(b"".join(_read(file, at, _LOCAL.size)))
        at += _LOCAL.size
        if at + name + extra + each.common.packed > end:
            raise ArchiveInvalid(f"Its entry {each.name!r} does not end before the next.")
        said = b"".join(_read(file, at, name + extra))
        if magic != b"PK\3\4" or _Common(*fields) != each.common or said[:name] != each.name:
            raise ArchiveInvalid(f"Its two lists say different things of {each.name!r}.")
        _require_extra(said[name:], extra)
        found[each.offset] = at = at + name + extra
        at += each.common.packed
    if at != end:
        raise ArchiveInvalid("Something lies between its files and their list.")
    return found


def _name(each: _Listed) -> str:
    try:
        return each.name.decode("utf-8" if each.common.flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise ArchiveInvalid(f"The name {each.name!r} is neither ASCII nor UTF-8.") from error


def _top(names: Iterable[str]) -> str:
    """The folder that holds all of the bundle, with its slash; empty where there is none."""
    names = list(names)
    if MANIFEST in names:
        return ""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or f"{(top := tops.pop())}/{MANIFEST}" not in names or not is_safe(top):
        raise ArchiveInvalid("It holds no manifest.json at its top, or in one folder there.")
    return f"{top}/"


def _contents(file: IO[bytes], start: int, common: _Common) -> Iterator[bytes]:
    """The bytes of an entry, in chunks: as many as were said, and with their CRC."""
    with _reading():
        chunks = _read(file, start, common.packed)
        left, crc = common.size, 0
        for chunk in chunks if common.method == _STORED else _inflated(chunks):
            left, crc = left - len(chunk), zlib.crc32(chunk, crc)
            if left < 0:
                break
            yield chunk
    if left or crc != common.crc:
        raise ArchiveInvalid("A file in it is damaged: its size or its CRC is not what was said.")


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    data = next(chunks, b"")
    try:
        while not stream.eof:
            found = stream.decompress(data, _CHUNK)
            data = stream.unconsumed_tail or next(chunks, b"")
            if not found and not data and not stream.eof:
                raise ArchiveInvalid("A file in it ends early.")
            yield found
    except zlib.error as error:
        raise ArchiveInvalid("A file in it is damaged: it cannot be unpacked.") from error
    if stream.unused_data or data:
        raise ArchiveInvalid("A file in it does not end where it should.")
