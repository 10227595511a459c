"""Write so that the old bundle or the new one is there, never a half."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from medimg_edge.bundle import MANIFEST, Bundle
from medimg_edge.errors import WriteError
from medimg_edge.staging import ABANDONED_SECONDS, staged


def small(folder: Path, text: str) -> None:
    """Enough of a bundle to be replaced."""
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(text)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_text(text)


@pytest.fixture
def out(tmp_path) -> Path:
    path = tmp_path / "bundles" / "out"
    path.mkdir(parents=True)
    small(path, "old")
    return path


def assert_only(out: Path, text: str) -> None:
    """The bundle is whole, and nothing lies beside it."""
    assert os.listdir(out.parent) == [out.name]
    assert (out / MANIFEST).read_text() == (out / "model" / "weights").read_text() == text


@pytest.mark.parametrize("exists", [False, True])
def test_staged(out, exists):
    if not exists:
        shutil.rmtree(out.parent)
    with staged(out) as folder:
        assert folder.parent == out.parent  # one file system, or it could not be renamed
        small(folder, "new")
    assert_only(out, "new")
    assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupted_export(out, error, exists):
    if not exists:
        shutil.rmtree(out)
    with pytest.raises(error), staged(out) as folder:  # noqa: PT012 - what the block ends in
        small(folder, "new")
        raise error
    if exists:
        assert_only(out, "old")
    else:
        assert not os.listdir(out.parent)


def test_only_a_bundle_or_an_empty_folder_is_replaced(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"...")
    (tmp_path / "link").symlink_to(photos)
    for out in (photos, photos / "a.png", tmp_path / "link", photos / "a.png" / "out"):
        with pytest.raises(WriteError), staged(out):
            pass
    assert os.listdir(photos) == ["a.png"]
    (tmp_path / "empty").mkdir()
    with staged(tmp_path / "empty") as folder:
        small(folder, "new")
    assert (tmp_path / "empty" / MANIFEST).read_text() == "new"


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(WriteError, match="too long"), staged(tmp_path / ("long" * 100)):
        pass


def test_nobody_sees_half_a_bundle(out):
    """One thread exchanges the bundle, another opens it all the while."""
    if not sys.platform.startswith("linux"):
        pytest.skip("one step needs renameat2 of Linux")
    done = False

    def replace() -> None:
        nonlocal done
        for at in range(30):
            with staged(out) as folder:
                small(folder, f"new {at}")
        done = True

    writer = Thread(target=replace)
    writer.start()
    seen = set()
    while not done and writer.is_alive():
        seen.add((out / MANIFEST).read_text())
    writer.join()
    assert done
    assert seen <= {"old", *(f"new {at}" for at in range(30))}
    assert_only(out, "new 29")


FILL = """
import sys
from pathlib import Path
from medimg_edge.staging import staged
from medimg_edge.errors import WriteError
{limit}
try:
    with staged(Path(sys.argv[1])) as folder:
        (folder / "manifest.json").write_text("new")
        (folder / "model").write_bytes(bytes(4 * 2**20))
except WriteError as error:
    print(error)
"""


def test_a_file_that_may_not_grow(out):
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))"
    )
    run = subprocess.run(
        [sys.executable, "-c", FILL.format(limit=limit), out], capture_output=True, text=True
    )
    assert "was not written (File too large); what was there before is unchanged" in run.stdout
    assert_only(out, "old")


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    script = 'mount -t tmpfs -o size=2m tmpfs "$1"; '
    try:
        subprocess.run([*mount, script, "sh", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets no user mount a file system of their own")
    (tmp_path / "fill.py").write_text(FILL.format(limit=""))
    script += (
        'mkdir "$1/out"; printf old >"$1/out/manifest.json"; "$2" "$3" "$1/out"; '
        'ls -A "$1" "$1/out"; cat "$1/out/manifest.json"'
    )
    run = subprocess.run(
        [*mount, script, "sh", disk, sys.executable, tmp_path / "fill.py"],
        capture_output=True,
        text=True,
    )
    said, *rest = run.stdout.splitlines()
    assert "No space left on device" in said
    assert rest == [f"{disk}:", "out", "", f"{disk}/out:", "manifest.json", "old"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_export(bundle):
    program = (
        "import sys, time; from pathlib import Path; from medimg_edge.staging import staged\n"
        "with staged(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'manifest.json').write_text('new')\n"
        "    print('half way', flush=True)\n"
        "    time.sleep(60)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, bundle], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == "half way\n"
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    Bundle.open(bundle).check_contents()


@pytest.mark.parametrize(
    "manifest",
    ['{"name": "a web page", "icons": []}', '{"artifacts": {}, "files": {}}'],
    ids=["of something else", "of a bundle, with a file of somebody"],
)
def test_files_of_others_are_not_replaced(tmp_path, manifest):
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_text(manifest)
    (out / "thesis.txt").write_text("three years")
    with pytest.raises(WriteError, match="holds"), staged(out) as folder:
        (folder / MANIFEST).write_text("new")
    assert (out / "thesis.txt").read_text() == "three years"


def test_what_killed_exports_left_is_removed_after_a_day(out):
    old, fresh, other = (
        out.parent / name for name in (".out.a.partial", ".out.b.partial", ".outer.c.partial")
    )
    for folder in (old, fresh, other):
        small(folder, "half")
    for folder in (old, other):
        day_before = time.time() - ABANDONED_SECONDS - 60
        os.utime(folder, (day_before, day_before))
    with staged(out) as folder:
        small(folder, "new")
    assert sorted(os.listdir(out.parent)) == [fresh.name, other.name, "out"]
    assert (out / MANIFEST).read_text() == "new"
