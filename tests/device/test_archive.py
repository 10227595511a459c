"""What comes on a stick: one bundle and nothing else, or it is refused before it is written."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import subprocess
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medimg_edge import archive
from medimg_edge.archive import pack, unpack
from medimg_edge.bundle import Bundle
from medimg_edge.errors import ArchiveInvalid, BundleError, BundleMissing, FilesDiffer, WriteError
from tests.device.golden_bundle import with_golden_set

LINK, FIFO, DEVICE = 0o120777, 0o010644, 0o060644


@pytest.fixture
def source(mean_bundle) -> Path:
    """A small bundle with a file in a folder, and with something that looks like a signature."""
    folder = with_golden_set(mean_bundle([1.0, -1.0], [0.0, 0.0]))
    (folder / "signatures").mkdir()
    (folder / "signatures" / "clinic.sig").write_text("-----BEGIN SSH SIGNATURE-----\n")
    return folder


@pytest.fixture
def packed(source, tmp_path) -> Path:
    path = tmp_path / "bundle.zip"
    pack(Bundle.open(source), path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = (each for each in folder.rglob("*") if each.is_file())
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in found}


def rezip(
    path: Path,
    content: dict[str, bytes],
    method: int = zipfile.ZIP_DEFLATED,
    **of_all: object,
) -> Path:
    """A zip as Python's own packer writes it. A folder's name ends in a slash."""
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in content.items():
            described = zipfile.ZipInfo(name)
            described.compress_type = method
            for key, value in of_all.items():
                setattr(described, key, value)
            packed.writestr(described, data)
    return path


def assert_refused(path: Path, folder: Path, match: str | None = None) -> None:
    """Refused for what it says of itself: nothing was written."""
    with pytest.raises(BundleError, match=match):
        unpack(path, folder)
    assert not folder.exists()


def test_pack_and_unpack(source, packed, tmp_path):
    told = []
    unpack(packed, tmp_path / "out", lambda *each: told.append(each))
    assert files(tmp_path / "out") == files(source)
    assert "signatures/clinic.sig" in files(tmp_path / "out")
    Bundle.open(tmp_path / "out").check_contents()
    count = len(files(source))
    assert told == [("copying", done, count) for done in range(count)]


def test_a_packed_bundle_is_the_same_everywhere(source, packed, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir(mode=0o700)
    for name, data in sorted(files(source).items(), reverse=True):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_bytes(data)
        os.utime(other / name, (1e9, 1e9))
        (other / name).chmod(0o600)
    pack(Bundle.open(other), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_other_programs_read_what_is_packed(source, packed, tmp_path):
    with zipfile.ZipFile(packed) as opened:
        assert opened.testzip() is None
        assert opened.namelist()[0] == "manifest.json"
        opened.extractall(tmp_path / "out")
    assert files(tmp_path / "out") == files(source)


@pytest.mark.parametrize("top", ["", "mean-1/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_of_other_packers(source, tmp_path, top, method):
    content = {top + name: data for name, data in files(source).items()}
    folders = {f"{top}golden/": b"", **({top: b""} if top else {})}
    for number, given_content in enumerate((content, {**folders, **content})):
        path = rezip(tmp_path / f"{number}.zip", given_content, method)
        unpack(path, tmp_path / f"out{number}")
        assert files(tmp_path / f"out{number}") == files(source)


def test_a_zip_of_python_make_archive(source, tmp_path):
    path = shutil.make_archive(str(tmp_path / "made"), "zip", source.parent, source.name)
    unpack(Path(path), tmp_path / "out")
    assert files(tmp_path / "out") == files(source)


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the program zip")
@pytest.mark.parametrize("options", [[], ["-X"], ["-9"], ["-0"], ["-D"]])
def test_a_zip_of_info_zip(source, tmp_path, options):
    path = tmp_path / "made.zip"
    subprocess.run(["zip", "-qr", *options, path, source.name], cwd=source.parent, check=True)
    unpack(path, tmp_path / "out")
    assert files(tmp_path / "out") == files(source)


def test_a_large_file_comes_in_chunks(source, rewrite, tmp_path):
    data = random.Random(1).randbytes(3 * archive._CHUNK + 17) + bytes(2 * archive._CHUNK)
    (source / "large").write_bytes(data)
    shutil.rmtree(source / "signatures")
    rewrite(source)
    for path in (
        rezip(tmp_path / "deflated.zip", files(source)),
        rezip(tmp_path / "stored.zip", files(source), zipfile.ZIP_STORED),
    ):
        unpack(path, tmp_path / path.stem)
        assert files(tmp_path / path.stem) == files(source)


def test_no_byte_of_a_packed_bundle_may_differ(packed, tmp_path):
    """Those of the list and of the end all; of the rest every seventh."""
    good = packed.read_bytes()
    path = tmp_path / "flipped.zip"
    rng = random.Random(7)
    listed = good.index(b"PK\1\2")
    for at in (*range(0, listed, 7), *range(listed, len(good))):
        flipped = bytearray(good)
        flipped[at] ^= rng.randrange(1, 256)
        path.write_bytes(flipped)
        assert_refused(path, tmp_path / "out")


def test_no_length_of_a_packed_bundle_but_its_own(packed, tmp_path):
    good = packed.read_bytes()
    path = tmp_path / "cut.zip"
    for end in range(0, len(good), 7):
        path.write_bytes(good[:end])
        assert_refused(path, tmp_path / "out")
    for more in (b"\0", b"PK\5\6" + bytes(18), good):
        path.write_bytes(good + more)
        assert_refused(path, tmp_path / "out")
        path.write_bytes(more + good)
        assert_refused(path, tmp_path / "out")


NAMES = {
    "absolute": ("/etc/passwd", "no place"),
    "above": ("../escaped", "no place"),
    "above, later": ("golden/../../escaped", "no place"),
    "backslash": ("golden\\x", "no place"),
    "drive": ("C:x", "no place"),
    "dot": ("./model.onnx", "no place"),
    "two slashes": ("golden//x", "no place"),
    "not listed": ("notes.txt", "does not list it"),
    "not listed, hidden": (".DS_Store", "does not list it"),
    "of a Mac": ("__MACOSX/x", "does not list it"),
    "case twin": ("MODEL.onnx", "same file on some systems"),
    "case twin of the manifest": ("Manifest.json", "same file on some systems"),
    "case twin of a folder": ("Golden/x", "same file on some systems"),
    "a file and a folder": ("model.onnx/x", "same file on some systems"),
    "wide twin": ("\uff4dodel.onnx", "same file on some systems"),
    "signature in a folder": ("signatures/more/a.sig", "no place"),
    "signature without ending": ("signatures/a", "no place"),
    "signature of two endings": ("signatures/a.sig.exe", "no place"),
    "empty folder": ("more/", "empty folder"),
    "empty folder in one": ("golden/more/", "empty folder"),
    "very long": ("x" * 250, "longer than"),
    "control characters": ("a\x1b[2Jb", r"\\x1b"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_an_added_entry(source, tmp_path, kind):
    name, match = NAMES[kind]
    path = rezip(tmp_path / "bad.zip", {**files(source), name: b"" if name[-1:] == "/" else b"x"})
    assert_refused(path, tmp_path / "out", match)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_twins(source, rewrite, tmp_path, form):
    """One is listed; the other would be the same file on a Mac."""
    shutil.rmtree(source / "signatures")
    listed, twin = (unicodedata.normalize(each, "Café.md") for each in (form, "NFKD"))
    twin = unicodedata.normalize("NFC", twin) if form == "NFD" else twin
    (source / listed).write_text("card")
    rewrite(source)
    path = rezip(tmp_path / "good.zip", files(source))
    unpack(path, tmp_path / "good")
    path = rezip(tmp_path / "bad.zip", {**files(source), twin: b"other"})
    assert_refused(path, tmp_path / "out", "same file on some systems")


def test_names_of_which_both_are_listed(source, rewrite, tmp_path):
    """A manifest that lists twins does not make them two files."""
    shutil.rmtree(source / "signatures")
    for name in ("card.md", "Card.md"):
        (source / name).write_text(name)
    rewrite(source)
    assert_refused(rezip(tmp_path / "bad.zip", files(source)), tmp_path / "out", "same file")
    assert_refused(source, tmp_path / "out", "same file")
    with pytest.raises(FilesDiffer, match="same file"):
        pack(Bundle.open(source), tmp_path / "twins.zip")
    assert not (tmp_path / "twins.zip").exists()


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "golden/01.png"])
def test_a_removed_entry(source, tmp_path, name):
    content = files(source)
    del content[name]
    assert_refused(rezip(tmp_path / "bad.zip", content), tmp_path / "out", name)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "signatures/clinic.sig"])
def test_a_renamed_entry(source, tmp_path, name):
    content = files(source)
    content[name + "x"] = content.pop(name)
    assert_refused(rezip(tmp_path / "bad.zip", content), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "signatures/clinic.sig"])
def test_an_entry_that_is_there_twice(source, packed, tmp_path, name):
    path = rezip(tmp_path / "bad.zip", files(source))
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(name, files(source)[name])
    assert_refused(path, tmp_path / "out", f"'{name}' 2 times")


@pytest.mark.parametrize("mode", [LINK, FIFO, DEVICE, 0o104755])
@pytest.mark.parametrize("system", [0, 3])
def test_an_entry_that_is_no_file(source, tmp_path, mode, system):
    path = rezip(tmp_path / "bad.zip", files(source))
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in files(source).items():
            described = zipfile.ZipInfo(name)
            described.create_system = system
            if name == "model.onnx":
                described.external_attr = mode << 16
            opened.writestr(described, data)
    assert_refused(path, tmp_path / "out", "is a link or a device")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression(source, tmp_path, method):
    assert_refused(rezip(tmp_path / "bad.zip", files(source), method), tmp_path / "out")


def test_sizes_of_64_bits(source, tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in files(source).items():
            with opened.open(name, "w", force_zip64=True) as file:
                file.write(data)
    assert_refused(path, tmp_path / "out", "not accepted")


def test_a_stream(source, tmp_path):
    """A packer that cannot go back writes sizes after the data: where, only it knows."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as opened:  # type: ignore[arg-type]
        for name, data in files(source).items():
            opened.writestr(name, data)
    (tmp_path / "bad.zip").write_bytes(pipe.data)
    assert_refused(tmp_path / "bad.zip", tmp_path / "out", "flags 0x8")


def test_too_many_entries(source, tmp_path):
    more = {f"more/{number}": b"" for number in range(archive.MAX_ENTRIES)}
    path = rezip(tmp_path / "bad.zip", {**files(source), **more})
    assert_refused(path, tmp_path / "out", "more than 1000 files")
    more = {f"more/{number}": b"" for number in range(3 * archive.MAX_ENTRIES)}
    path = rezip(tmp_path / "bad.zip", {**files(source), **more})
    assert_refused(path, tmp_path / "out", "entries")


def test_too_many_and_too_large_signatures(source, tmp_path):
    many = {f"signatures/{number}.sig": b"x" for number in range(16)}
    assert_refused(rezip(tmp_path / "1.zip", files(source) | many), tmp_path / "out", "16 sig")
    large = {"signatures/a.sig": bytes(archive.MAX_SIGNATURE_BYTES + 1)}
    assert_refused(rezip(tmp_path / "2.zip", files(source) | large), tmp_path / "out", "signature")


def test_a_bomb(source, rewrite, tmp_path):
    """Honest about its size, and listed: it is refused for what it would unpack to."""
    shutil.rmtree(source / "signatures")
    with (source / "zeros").open("wb") as file:
        file.truncate(64 * 2**20)
    rewrite(source)
    path = rezip(tmp_path / "bomb.zip", files(source))
    assert path.stat().st_size < 2**17
    assert_refused(path, tmp_path / "out", "would have 67108864 bytes, of")


def test_more_than_may_be_unpacked(source, packed, tmp_path):
    claimed = struct.pack("<L", archive.MAX_BYTES)
    for change in (both("model.onnx", 24, claimed), both("model.onnx", 20, claimed)):
        path = tmp_path / "bad.zip"
        path.write_bytes(change(rezip(path, files(source)).read_bytes()))
        assert_refused(path, tmp_path / "out", "not accepted")


def test_a_bomb_that_lies(source, tmp_path):
    """Says 20 kB in both of its lists, and inflates to 64 MB: it stops where it said it ends."""
    content = {**files(source), "model.onnx": bytes(64 * 2**20)}
    size = len(files(source)["model.onnx"])
    path = tmp_path / "bomb.zip"
    path.write_bytes(
        both("model.onnx", 24, struct.pack("<L", size))(rezip(path, content).read_bytes())
    )
    with pytest.raises(ArchiveInvalid, match="its size or its CRC is not what was said"):
        unpack(path, tmp_path / "out")
    assert sum(map(len, files(tmp_path / "out").values())) <= sum(map(len, files(source).values()))


def both(name: str, at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Change a field of an entry in both lists; ``at``: where the central one has it."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        encoded = name.encode()
        for magic, header, shift in ((b"PK\1\2", 46, 0), (b"PK\3\4", 30, -2)):
            start = data.index(encoded) - header
            while data[start : start + 4] != magic:
                start = data.index(encoded, start + header + 1) - header
            changed[start + at + shift : start + at + shift + len(value)] = value
        return bytes(changed)

    return change


def central(name: str, at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Change a field of an entry in the central list alone."""

    def change(data: bytes) -> bytes:
        start = data.rindex(name.encode()) - 46
        assert data[start : start + 4] == b"PK\1\2"
        changed = bytearray(data)
        changed[start + at : start + at + len(value)] = value
        return bytes(changed)

    return change


def ending(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Change a field of the record at the end."""
    return lambda data: (
        data[: len(data) - 22 + at] + value + data[len(data) - 22 + at + len(value) :]
    )


def moved(data: bytes) -> bytes:
    """Something before the first file, and every offset right."""
    changed, at = bytearray(b"MZ" + data), 0
    while (at := changed.find(b"PK\1\2", at)) >= 0:
        offset = struct.unpack_from("<L", changed, at + 42)[0]
        struct.pack_into("<L", changed, at + 42, offset + 2)
        at += 46
    start = struct.unpack_from("<L", changed, len(changed) - 6)[0]
    struct.pack_into("<L", changed, len(changed) - 6, start + 2)
    return bytes(changed)


def gap(data: bytes) -> bytes:
    """Something between the last file and the central list."""
    start = struct.unpack_from("<L", data, len(data) - 6)[0]
    changed = bytearray(data[:start] + b"hidden" + data[start:])
    struct.pack_into("<L", changed, len(changed) - 6, start + 6)
    return bytes(changed)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "encrypted": both("model.onnx", 8, b"\1\0"),
    "strongly encrypted": both("model.onnx", 8, b"\x41\0"),
    "patched data": both("model.onnx", 8, b"\x20\0"),
    "of a later version": both("model.onnx", 6, b"\x2d\0"),
    "unknown method": both("model.onnx", 10, b"\x63\0"),
    "another method in one list": central("model.onnx", 10, b"\0\0"),
    "another size in one list": central("model.onnx", 24, b"\1\0\0\0"),
    "another time in one list": central("model.onnx", 12, b"\1\1"),
    "another CRC in one list": central("model.onnx", 16, b"1234"),
    "another CRC in both": both("model.onnx", 16, b"1234"),
    "another name in one list": central("model.onnx", 46, b"m0del.onnx"),
    "a comment of a file": central("model.onnx", 32, b"\1\0"),
    "on another disk": central("model.onnx", 34, b"\1\0"),
    "a volume": central("model.onnx", 38, b"\x08"),
    "a folder's attribute": central("model.onnx", 38, b"\x10"),
    "the file of another": central("model.onnx", 42, b"\0\0\0\0"),
    "no UTF-8": lambda data: data.replace(b"golden/01.png", b"golden/0\xff.png"),
    "something before": lambda data: b"MZ" + data,
    "something before, offsets moved": moved,
    "something after": lambda data: data + b"more",
    "something between": gap,
    "a comment": lambda data: data[:-2] + b"\4\0more",
    "more entries than there are": ending(8, b"\x09\0\x09\0"),
    "fewer entries than there are": ending(8, b"\1\0\1\0"),
    "no entries": ending(8, b"\0\0\0\0"),
    "many disks": ending(4, b"\1\0"),
    "no central list": ending(12, b"\0\0\0\0"),
    "a central list elsewhere": ending(16, b"\0\0\0\0"),
    "64-bit ending": ending(16, b"\xff\xff\xff\xff"),
    "nothing but an end": lambda data: data[-22:],
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_zip_that_is_not_plain(source, tmp_path, kind):
    path = rezip(tmp_path / "bad.zip", files(source))
    good = path.read_bytes()
    bad = CHANGES[kind](good)
    assert bad != good
    path.write_bytes(bad)
    with pytest.raises(ArchiveInvalid, match=r"bad\.zip is not accepted: .* Pack the bundle with"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    "extra", [b"\x75\x70\1\0x", b"\1\0\4\0size", b"\x55\x54\xff\0short", b"xy"]
)
def test_extra_fields_that_say_more(source, tmp_path, extra):
    path = rezip(tmp_path / "bad.zip", files(source), extra=extra)
    assert_refused(path, tmp_path / "out", "more of its files than is read")


def test_two_manifests(source, tmp_path):
    content = {f"bundle/{name}": data for name, data in files(source).items()}
    path = rezip(tmp_path / "bad.zip", {**content, **files(source)})
    assert_refused(path, tmp_path / "out", "does not list it")
    other = {f"other/{name}": data for name, data in files(source).items()}
    path = rezip(tmp_path / "bad.zip", {**content, **other})
    assert_refused(path, tmp_path / "out", "at its top, or in one folder")
    above = {f"../{name}": data for name, data in files(source).items()}
    assert_refused(rezip(tmp_path / "bad.zip", above), tmp_path / "out", "at its top, or in one")


def test_a_deflated_file_with_something_behind_it(source, tmp_path):
    """More compressed bytes than the stream has."""
    path = rezip(tmp_path / "bad.zip", files(source))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as opened:
        last = opened.infolist()[-1]
        start = opened.start_dir
    packed_size = struct.pack("<L", last.compress_size + 3)
    data = both(last.filename, 20, packed_size)(data)
    data = bytearray(data[:start] + b"abc" + data[start:])
    struct.pack_into("<L", data, len(data) - 6, start + 3)
    path.write_bytes(data)
    with pytest.raises(ArchiveInvalid, match="does not end where it should"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["none", "empty", "text", "folder", "fifo", "device", "image"])
def test_what_is_no_bundle(tmp_path, frozen, kind):
    path = tmp_path / "given"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "image":
        path = frozen / "golden" / "01-gray8.png"
    elif kind != "none":
        path.write_text("" if kind == "empty" else "PK text " * 20)
    began = time.monotonic()
    expected = BundleMissing if kind in ("none", "folder") else ArchiveInvalid
    with pytest.raises(expected):
        unpack(path, tmp_path / "out")
    assert time.monotonic() - began < 5
    assert not (tmp_path / "out").exists()


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(BundleMissing, match="There is no x"):
        unpack(Path("x" * 300), tmp_path / "out")


def test_a_source_that_may_not_be_read(packed, tmp_path, monkeypatch):
    if os.geteuid() == 0:
        packed = Path("/proc/self/mem")  # what not even root reads from its start
    else:
        packed.chmod(0)
    assert_refused(packed, tmp_path / "out")


def test_a_folder(source, tmp_path):
    unpack(source, tmp_path / "out")
    assert files(tmp_path / "out") == files(source)
    (tmp_path / "link").symlink_to(source)
    unpack(tmp_path / "link", tmp_path / "again")
    assert files(tmp_path / "again") == files(source)


def add_link(folder: Path) -> None:
    (folder / "golden" / "01.png").rename(folder.parent / "elsewhere")
    (folder / "golden" / "01.png").symlink_to(folder.parent / "elsewhere")


def add_hard_link(folder: Path) -> None:
    os.link(folder / "golden" / "01.png", folder.parent / "elsewhere")


def link_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere")


def link_signature(folder: Path) -> None:
    (folder / "signatures" / "b.sig").symlink_to("clinic.sig")


FOLDERS: dict[str, Callable[[Path], object]] = {
    "link": add_link,
    "hard link": add_hard_link,
    "link to the manifest": link_manifest,
    "link to a signature": link_signature,
    "link to a folder": lambda folder: (folder / "more").symlink_to(folder / "golden"),
    "fifo": lambda folder: os.mkfifo(folder / "pipe"),
    "file": lambda folder: (folder / "notes.txt").write_text("x"),
    "empty folder": lambda folder: (folder / "more").mkdir(),
    "removed": lambda folder: (folder / "model.onnx").unlink(),
    "shorter": lambda folder: (folder / "model.onnx").write_bytes(b"x"),
    "signature's folder": lambda folder: (folder / "signatures" / "more").mkdir(),
    "signature's name": lambda folder: (folder / "signatures" / "a.txt").write_text("x"),
    "large signature": lambda folder: (folder / "signatures" / "a.sig").write_bytes(bytes(5000)),
    "signatures as a file": lambda folder: (
        shutil.rmtree(folder / "signatures"),
        (folder / "signatures").write_text("x"),
    ),
    "name that is no UTF-8": lambda folder: Path(
        os.fsdecode(os.fsencode(folder) + b"/\xff")
    ).touch(),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_no_bundle(source, tmp_path, kind):
    FOLDERS[kind](source)
    with pytest.raises(FilesDiffer):
        unpack(source, tmp_path / "out")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_a_linked_file_can_be_packed(source, tmp_path):
    """Some installers link what they install; a zip has no links."""
    add_hard_link(source)
    pack(Bundle.open(source), tmp_path / "b.zip")
    unpack(tmp_path / "b.zip", tmp_path / "out")
    assert files(tmp_path / "out") == files(source)


def test_pack_refuses(source, tmp_path):
    opened = Bundle.open(source)
    for out in (source / "b.zip", source / "golden" / "b.zip"):
        with pytest.raises(WriteError, match="in the bundle itself"):
            pack(opened, out)
    with pytest.raises(WriteError):
        pack(opened, tmp_path / "none" / "b.zip")
    data = bytearray((source / "model.onnx").read_bytes())
    data[9] ^= 1
    (source / "model.onnx").write_bytes(data)
    (tmp_path / "b.zip").write_text("before")
    with pytest.raises(FilesDiffer):
        pack(opened, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_text() == "before"
    assert not list(tmp_path.glob(".b.zip*"))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4
    )
)
def test_only_our_errors(source, tmp_path, edits):
    """A zip of another packer, with bytes written over its headers and its contents."""
    path = rezip(tmp_path / "fuzzed.zip", files(source))
    data = bytearray(path.read_bytes())
    for at, value in edits:
        place = at % len(data)
        data[place : place + len(value)] = value
    path.write_bytes(data)
    out = tmp_path / "out"
    try:
        unpack(path, out)
        Bundle.open(out).check_contents()
    except BundleError:
        pass
    finally:
        shutil.rmtree(out, ignore_errors=True)
