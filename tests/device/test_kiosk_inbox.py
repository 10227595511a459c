"""Images in folders: told when they are whole, read by ids that nobody can make up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medimg_edge.dicom.node.spool import Spool
from medimg_edge.errors import BodyTooLarge, InputMissing, NotFound
from medimg_edge.kiosk import inbox
from medimg_edge.kiosk.inbox import ITEMS, SETTLED_SECONDS, Inbox

LIMIT = 1000


def written(path: Path, data: bytes = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def settle() -> None:
    time.sleep(SETTLED_SECONDS + 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


def names(found: Inbox) -> list[str]:
    return [each.name for each in found.look().items]


def test_it_is_light():
    """The service's process must not hold what only an answer needs."""
    program = (
        "import sys, medimg_edge.kiosk.inbox\n"
        "print([each for each in ('numpy', 'cv2', 'pydicom') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_images_are_told_newest_first_and_read(folder: Path):
    written(folder / "first.png", b"1")
    time.sleep(0.05)
    written(folder / "ward" / "second.DCM", b"22")
    for other in ("notes.txt", ".hidden.png", ".cache/third.png", "ward/DICOMDIR"):
        written(folder / other)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    settle()
    found = Inbox([folder])
    items = found.look().items
    assert [(each.name, each.kind, each.bytes) for each in items] == [
        ("second.DCM", "folder", 2),
        ("first.png", "folder", 1),
    ]
    assert [found.read(each.id, LIMIT) for each in items] == [(b"22", "folder"), (b"1", "folder")]
    assert items[0].arrived.endswith("Z")
    assert items[0].arrived > items[1].arrived
    assert found.look().notes == []


def test_a_file_that_changes_is_not_told_yet(folder: Path):
    """Also where it brings an old time along, as copies do."""
    found = Inbox([folder])
    copied = written(folder / "copied.png")
    os.utime(copied, (0, 0))
    assert names(found) == []
    settle()
    ((name, *_, arrived, _),) = found.look().items
    assert arrived > "2001"
    with copied.open("ab") as file:
        file.write(b"more")
    assert names(found) == []
    with pytest.raises(NotFound):
        found.read(name, LIMIT)


def test_ids_cannot_be_made_up(folder: Path):
    image = written(folder / "a.png")
    settle()
    found, other = Inbox([folder]), Inbox([folder])
    (item,) = found.look().items
    assert item.id != other.look().items[0].id
    for made_up in ("a.png", str(image), "../incoming/a.png", "", "\0", item.id[:-1], "\udc80"):
        with pytest.raises(NotFound):
            found.read(made_up, LIMIT)
    assert found.read(item.id, LIMIT) == (b"image", "folder")


def test_a_secret_that_is_given_makes_the_same_ids_again(folder: Path):
    written(folder / "a.png")
    settle()
    secret = b"s" * 32
    assert Inbox([folder], secret).look() == Inbox([folder], secret).look()


def test_no_link_leads_out(folder: Path, tmp_path: Path):
    outside = written(tmp_path / "outside" / "secret.png", b"secret")
    (folder / "link.png").symlink_to(outside)
    (folder / "folder").symlink_to(outside.parent)
    kept = written(folder / "ward" / "secret.png", b"inside")
    settle()
    found = Inbox([folder])
    (item,) = found.look().items
    assert found.read(item.id, LIMIT) == (b"inside", "folder")
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.symlink_to(outside.parent)
    with pytest.raises(NotFound):
        found.read(item.id, LIMIT)


@pytest.mark.parametrize("swapped", ["ward", "ward/a.png"])
def test_what_becomes_a_link_between_look_and_open_is_not_read(
    folder: Path, tmp_path: Path, swapped: str
):
    outside = written(tmp_path / "outside" / "a.png", b"secret")
    image = written(folder / "ward" / "a.png")
    settle()
    (file,) = Inbox([folder])._files(lambda note: None)
    image.unlink()
    if swapped == "ward":
        image.parent.rmdir()
        image.parent.symlink_to(outside.parent)
    else:
        image.symlink_to(outside)
    with pytest.raises(NotFound):
        inbox._content(file, LIMIT)


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path):
    written(folder / "a.png")
    (tmp_path / "link").symlink_to(folder)
    settle()
    found = Inbox([tmp_path / "link"])
    assert found.read(found.look().items[0].id, LIMIT)[0] == b"image"


def test_a_file_of_more_bytes_than_are_taken(folder: Path):
    written(folder / "a.png", b"x" * 11)
    settle()
    found = Inbox([folder])
    (item,) = found.look().items
    with pytest.raises(BodyTooLarge, match="has 11 bytes; at most 10 are taken"):
        found.read(item.id, 10)
    assert len(found.read(item.id, 11)[0]) == 11


def test_the_newest_are_told(folder: Path):
    for at in range(ITEMS + 5):
        written(folder / f"{at}.png")
    settle()
    assert len(names(Inbox([folder]))) == ITEMS


def test_a_folder_of_too_many_images_is_noted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inbox, "LOOKED_AT", 3)
    for at in range(4):
        written(folder / f"{at}.png")
    settle()
    look = Inbox([folder]).look()
    assert len(look.items) == 3
    assert "holds more than 3 images" in look.notes[0]


def test_names_that_no_screen_shows(folder: Path):
    written(Path(os.fsdecode(bytes(folder) + b"/\xff\n\xe2\x80\xaea.png")))
    settle()
    found = Inbox([folder])
    assert names(found) == ["\ufffd\ufffd\ufffda.png"]
    assert found.read(found.look().items[0].id, LIMIT)[0] == b"image"


def test_a_listeners_images_by_their_pseudonyms(folder: Path):
    """Of a real spool: what was answered and is kept, and nothing that waits or was made of it."""
    spool = Spool(folder, model="ab" * 8, keep_images=True)
    answered, waiting = (
        spool.receive(written(spool.partial / uid, b"dicom"), uid) for uid in ("1.2.3", "1.2.4")
    )
    assert answered is not None
    assert waiting is not None
    spool.keep(answered, {"sc.dcm": b"a picture", "json": b"{}"})
    written(folder / "results" / "other" / "other.source.dcm")
    written(folder / "results" / f"{waiting}-ab" / f"{answered}.source.dcm")
    settle()
    found = Inbox([folder])
    (item,) = found.look().items
    assert (item.name, item.kind) == (answered, "dicom")
    assert found.read(item.id, LIMIT) == (b"dicom", "dicom")
    spool.close()


def test_a_folder_that_cannot_be_read_is_noted_and_others_are_told(folder: Path, tmp_path: Path):
    written(folder / "a.png")
    missing, file = tmp_path / "missing", written(tmp_path / "file")
    settle()
    look = Inbox([missing, folder, file]).look()
    assert [each.name for each in look.items] == ["a.png"]
    assert [note.partition(":")[0] for note in look.notes] == [
        f"{missing} cannot be read",
        f"{file} cannot be read",
    ]
    assert not Inbox([]).is_watching
    assert Inbox([missing]).is_watching


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user")
def test_rights(folder: Path):
    """What root gave away too little of; in a process that is not root."""
    written(folder / "open.png")
    written(folder / "closed.png").chmod(0o600)
    (folder / "Doe^Jane").mkdir(mode=0o700)
    program = (
        "import os, sys\n"
        "from medimg_edge.errors import InputMissing\n"
        "from medimg_edge.kiosk.inbox import Inbox\n"
        "folder = os.open(sys.argv[1], os.O_RDONLY)\n"  # the way there may be root's
        "os.fchdir(folder), os.setgid(65534), os.setuid(65534)\n"
        "found = Inbox(['.'])\n"
        "found._folders = ('.',)\n"
        "look = found.look()\n"
        "print(sorted(each.name for each in look.items), look.notes)\n"
        "for each in look.items:\n"
        "    try: print(each.name, found.read(each.id, 100))\n"
        "    except InputMissing as error: print(each.name, error.code)\n"
    )
    settle()
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert "'closed.png', 'open.png'" in lines[0], done.stderr
    assert "A folder within a watched folder cannot be read" in lines[0]
    assert "Doe" not in done.stdout
    assert sorted(lines[1:]) == [
        f"closed.png {InputMissing.code}",
        "open.png (b'image', 'folder')",
    ]


def test_a_file_that_is_replaced_is_another_image(folder: Path):
    """A machine may export each image under the same name."""
    path = written(folder / "CURRENT.png", b"one")
    settle()
    inbox = Inbox([folder])
    (first,) = inbox.look().items
    written(path, b"two")
    settle()
    (second,) = inbox.look().items
    assert (first.name, second.name) == ("CURRENT.png", "CURRENT.png")
    assert first.id != second.id
    assert inbox.read(second.id, 10)[0] == b"two"
    with pytest.raises(NotFound):
        inbox.read(first.id, 10)
