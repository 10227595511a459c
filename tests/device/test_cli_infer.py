"""``infer`` over folders, lists and shards; killed, interrupted, and with the disk full."""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest

from medimg_edge.results_file import ResultsFile
from tests.device.control_c import hear_control_c
from tests.device.said import beside_trust

GOLDEN = ("01-gray8.png", "04-wide.png", "06-smaller.png")
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and names")


@pytest.fixture(scope="module")
def archive(frozen, tmp_path_factory) -> Path:
    """200 small images in nested folders, one of them damaged."""
    root: Path = tmp_path_factory.mktemp("archive") / "in"
    for at in range(200):
        path = root / f"ward{at % 3}" / f"{at:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(frozen / "golden" / GOLDEN[at % 3], path)
    damaged = root / "ward1" / "100.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    return root


@pytest.fixture(scope="module")
def started(frozen):
    """Start ``infer`` in a process of its own."""

    def start(*arguments: object, **options) -> subprocess.Popen:
        words = [sys.executable, "-m", "medimg_edge.cli", "infer", "-b", frozen, *arguments]
        usual = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": hear_control_c}
        return subprocess.Popen(list(map(str, words)), **usual | options)

    return start


def answers(text: str, form: str = "jsonl") -> list[dict]:
    """Records without what differs from run to run."""
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        row.pop("elapsed_ms", None)
    return rows


@pytest.fixture(scope="module")
def whole(archive, frozen, command) -> list[dict]:
    """What a run that nothing disturbs says."""
    done = command("infer", archive, "-b", frozen)
    assert done.returncode == 1
    return answers(done.stdout)


def test_a_folder_in_order(archive, whole):
    assert [each["input"] for each in whole] == sorted(map(str, archive.rglob("*.png")))
    assert Counter(each["status"] for each in whole) == {"ok": 199, "error": 1}


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_answer(archive, whole, frozen, called, threads):
    done = called("infer", archive, "-b", frozen, "--threads", threads)
    assert answers(done.stdout) == whole


@posix
def test_a_hundred_thousand_files(frozen, called, tmp_path):
    """Of a thousandth of them: they are gone through, and no file of another part is opened."""
    for folder in range(100):
        (tmp_path / f"{folder:02}").mkdir()
        for name in range(1000):
            os.mknod(tmp_path / f"{folder:02}" / f"{name:03}.png")
    done = called("infer", tmp_path, "-b", frozen, "--shard", "7/1000")
    found = answers(done.stdout)
    assert 50 < len(found) < 200
    assert {each["code"] for each in found} == {"input-empty"}
    assert [each["input"] for each in found] == sorted(each["input"] for each in found)


# Going on


@posix
@pytest.mark.parametrize(("form", "times"), [("jsonl", 20), ("csv", 5)])
def test_killed_many_times(archive, whole, frozen, command, started, tmp_path, form, times):
    """At random moments, most of them while it answers: one record for each input, in order."""
    chance = random.Random(form)
    out = tmp_path / f"answers.{form}"
    words = (archive, "--out", out, "--resume")
    sizes = []
    for _ in range(times):
        run = started(*words, stderr=subprocess.DEVNULL)
        before = out.stat().st_size if out.exists() else 0
        end = time.monotonic() + 20
        while run.poll() is None and time.monotonic() < end:  # it has begun to answer
            if out.exists() and out.stat().st_size > before:
                break
            time.sleep(0.005)
        time.sleep(chance.random() * 0.03)
        run.kill()
        run.wait()
        sizes.append(out.stat().st_size)
    assert len(set(sizes)) > 2, sizes  # else it was ended before or after, not while
    done = command("infer", *words, "-b", frozen)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    found = answers(out.read_text(), form)
    assert [each["input"] for each in found] == [each["input"] for each in whole]
    assert [each["status"] for each in found] == [each["status"] for each in whole]
    if form == "jsonl":
        assert found == whole
    before = out.read_bytes()
    assert command("infer", *words, "-b", frozen).returncode == 1  # as if it had not been ended
    assert out.read_bytes() == before


def test_inputs_that_are_given_twice(frozen, called, tmp_path):
    """Each time is an input; so are two names that are printed alike."""
    image, out = frozen / "golden" / "01-gray8.png", tmp_path / "answers.jsonl"
    called("infer", image, "-b", frozen, "--out", out, "--resume")
    for count in (3, 3, 4):
        called("infer", *[image] * count, "-b", frozen, "--out", out, "--resume")
        assert [each["input"] for each in answers(out.read_text())] == [str(image)] * count


@posix
def test_going_on_with_names_that_are_not_utf_8(frozen, command, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "answers.csv"
    folder.mkdir()
    try:
        for name in (b"caf\xe9.png", rb"caf\udce9.png", b"new\nline\r.png"):
            shutil.copy(frozen / "golden" / "01-gray8.png", os.fsencode(folder) + b"/" + name)
    except OSError:
        pytest.skip("this file system has no such names")
    words = ("infer", folder, "-b", frozen, "--out", out, "--resume")
    assert command(*words).returncode == 0
    written = out.read_bytes()
    assert len(answers(out.read_bytes().decode(), "csv")) == 3
    assert command(*words).returncode == 0
    assert out.read_bytes() == written
    out.write_bytes(written[:-100])
    assert command(*words).returncode == 0
    assert len(answers(out.read_bytes().decode(), "csv")) == 3


def test_the_file_of_another_artifact(frozen, called, tmp_path):
    image, out = frozen / "golden" / "01-gray8.png", tmp_path / "answers.jsonl"
    words = ("infer", image, "-b", frozen, "--out", out, "--resume", "--artifact")
    assert called(*words, "model.onnx").returncode == 0
    before = out.read_bytes()
    done = called(*words, "model.int8.onnx")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [write]: {out} holds answers of model.onnx of the bundle")
    assert out.read_bytes() == before


def test_the_ending_says_the_form(frozen, called, tmp_path):
    image = frozen / "golden" / "01-gray8.png"
    for name, start in (("a.csv", "input,"), ("a.JSON", "[\n"), ("a.jsonl", "{"), ("a.txt", "{")):
        called("infer", image, "-b", frozen, "--out", tmp_path / name)
        assert (tmp_path / name).read_text().startswith(start)


# Ctrl-C


@posix
@pytest.mark.parametrize(
    "options", [(), ("--out", "a.json"), ("--out", "a.jsonl", "--resume"), ("--out", "a.csv")]
)
def test_interrupted(frozen, started, tmp_path, options):
    """The finished part is written, in a whole document; exit 130, at once, and no traceback."""
    words = [frozen / "golden" / "01-gray8.png"] * 5000
    run = started(*words, *options, cwd=tmp_path, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    first = ""
    if options:
        partial = tmp_path / (options[1] if "--resume" in options else f".{options[1]}.partial")
        while run.poll() is None and not (partial.exists() and partial.stat().st_size > 2000):
            time.sleep(0.01)
    else:
        first = run.stdout.readline()
    run.send_signal(signal.SIGINT)
    text, error = first + run.stdout.read(), beside_trust(run.stderr.read())
    assert run.wait(20) == 130
    assert error.startswith("Interrupted: ")
    assert error.count("\n") == 1
    if not options:
        found = answers(text)
    else:
        (name,) = os.listdir(tmp_path)
        assert name == options[1]
        written = (tmp_path / name).read_text()
        form = name.removeprefix("a.")
        found = json.loads(written) if form == "json" else answers(written, form)
    assert 0 < len(found) < 5000
    assert {each["status"] for each in found} == {"ok"}


@posix
def test_interrupted_while_a_list_is_awaited(frozen, started):
    run = started("--from-list", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdin is not None
    assert run.stdout is not None
    image = frozen / "golden" / "01-gray8.png"
    run.stdin.write(f"{image}\n")
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["input"] == str(image)  # before the list has ended
    run.send_signal(signal.SIGINT)
    assert run.wait(20) == 130
    run.communicate()


# Lists and shards


def test_a_list_through_a_pipe(archive, whole, frozen, command):
    names = "".join(f"{each['input']}\n" for each in whole)
    done = command("infer", "-b", frozen, "--from-list", "-", input=names)
    assert answers(done.stdout) == whole


def test_a_sheet(archive, whole, frozen, called, tmp_path):
    sheet = archive / "labels.csv"
    sheet.write_text("path,label\nward0/000.png,no\nward2/002.png,yes\nward2/none.png,no\n")
    done = called("infer", "-b", frozen, "--from-list", sheet, "--heatmap", tmp_path / "maps")
    sheet.unlink()
    first, second, missing = answers(done.stdout)
    assert [first, second] == [whole[0], whole[134]]
    assert missing["code"] == "input-missing"
    written = sorted(str(p.relative_to(tmp_path / "maps")) for p in tmp_path.rglob("*.png"))
    assert written == ["ward0/000.png.opacity.png", "ward2/002.png.opacity.png"]


def test_heatmaps_of_a_list_of_whole_paths(archive, frozen, called, tmp_path):
    text = tmp_path / "list.txt"
    image = archive / "ward0" / "000.png"
    text.write_text(f"{image}\n")
    called("infer", "-b", frozen, "--from-list", text, "--heatmap", tmp_path / "maps")
    expected = tmp_path / "maps" / image.relative_to(image.anchor)
    assert [*(tmp_path / "maps").rglob("*.png")] == [Path(f"{expected}.opacity.png")]


def test_heatmaps_are_no_inputs(frozen, called, tmp_path):
    """Even if they are written into the folder that is searched."""
    shutil.copy(frozen / "golden" / "01-gray8.png", tmp_path)
    for _ in range(2):
        done = called("infer", tmp_path, "-b", frozen, "--heatmap", tmp_path / "maps")
        assert [each["input"] for each in answers(done.stdout)] == [str(tmp_path / "01-gray8.png")]
    assert os.listdir(tmp_path / "maps") == ["01-gray8.png.opacity.png"]


def test_shards_merge_into_the_whole(archive, whole, frozen, called):
    parts = [called("infer", archive, "-b", frozen, "--shard", f"{at}/3") for at in (1, 2, 3)]
    assert sum(done.returncode for done in parts) == 1  # the damaged one is in one of them
    lines = [answers(done.stdout) for done in parts]
    assert min(map(len, lines)) > 40
    merged = answers("".join(done.stdout for done in parts))
    assert sorted(merged, key=lambda each: each["input"]) == whole


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x.png", "--from-list", "l.txt"], "either INPUT... or --from-list"),
        (["x.png", "--resume"], "--out"),
        (["x.png", "--resume", "--out", "a.json"], "not json"),
        (["x.png", "--resume", "--out", "a.csv", "--format", "table"], "not table"),
        (["--from-list", "l.txt", "--watch"], "is for folders"),
        (["in", "--watch", "--out", "a.jsonl"], "--resume"),
        (["x.png", "--shard", "0/3"], "2/8"),
        (["x.png", "--shard", "4/3"], "2/8"),
        (["x.png", "--shard", "third"], "2/8"),
        (["x.png", "--threads", "0"], "--threads"),
    ],
)
def test_usage(called, arguments, says):
    done = called("infer", *arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_a_list_that_is_not_there(frozen, called, tmp_path):
    done = called("infer", "-b", frozen, "--from-list", tmp_path / "none.txt")
    assert done.returncode == 1
    assert done.stderr.startswith("error [data-missing]: The list")


# What goes wrong on the way


@posix
def test_files_that_vanish_while_it_runs(frozen, started, tmp_path):
    """One record each, whatever they were when they were found."""
    folder = tmp_path / "in"
    folder.mkdir()
    for at in range(300):
        shutil.copy(frozen / "golden" / "01-gray8.png", folder / f"{at:03}.png")
    run = started(folder, stdout=subprocess.PIPE)
    assert run.stdout is not None
    first = run.stdout.readline()
    for at in range(150, 300):
        (folder / f"{at:03}.png").unlink()
    found = answers(first + run.stdout.read())
    assert [each["input"] for each in found] == [str(folder / f"{at:03}.png") for at in range(300)]
    assert {each["status"] for each in found[:100]} == {"ok"}
    assert {each.get("code") for each in found[250:]} == {"input-missing"}
    assert run.wait(20) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_file_to_go_on_with(frozen, called):
    image = frozen / "golden" / "01-gray8.png"
    done = called("infer", image, "-b", frozen, "--out", "/dev/full", "--resume", "--format", "csv")
    assert done.returncode == 1
    assert done.stderr.startswith("error [write]: /dev/full is no regular file")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"),
    reason="needs root to mount a small disk",
)
def test_a_disk_that_is_full(archive, whole, frozen, command, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        words = ("infer", archive, "-b", frozen, "--out", disk / "a.jsonl", "--resume")
        done = command(*words)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error [write]: {disk / 'a.jsonl'} cannot be written: No sp")
        kept = answers((disk / "a.jsonl").read_text())
        assert kept == whole[: len(kept)]
        assert 50 < len(kept) < 200
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        command(*words)
        assert answers((disk / "a.jsonl").read_text()) == whole
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_is_written_counts_though_the_disk_is_slow(frozen, called, monkeypatch, tmp_path):
    """Ctrl-C while the disk confirms: the answer is in the file, and that is what is told."""

    def interrupted(file: ResultsFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultsFile, "settle", interrupted)
    image, out = frozen / "golden" / "01-gray8.png", tmp_path / "answers.jsonl"
    done = called("infer", image, "-b", frozen, "--out", out, "--resume")
    assert done.returncode == 130
    assert done.stderr == "Interrupted: 1 answered; they are written.\n"
    assert len(answers(out.read_text())) == 1


# Watching


@posix
def test_watching(frozen, started, tmp_path):
    """A folder to which a file is written slowly; killed, gone on with, interrupted."""
    pytest.importorskip("watchfiles", reason="watchfiles, of the watch extra, tells of changes")
    folder, out = tmp_path / "in", tmp_path / "answers.jsonl"
    folder.mkdir()
    shutil.copy(frozen / "golden" / "01-gray8.png", folder / "a.png")
    words = ("--watch", folder, "--out", out, "--resume", "--heatmap", folder / "maps")

    def names() -> list[str]:
        lines = out.read_text().splitlines() if out.exists() else []
        return [Path(json.loads(line)["input"]).name for line in lines]

    def until(wanted: list[str]) -> None:
        end = time.monotonic() + 30
        while names() != wanted and time.monotonic() < end:
            time.sleep(0.05)
        assert names() == wanted

    def slowly(data: bytes) -> None:
        with (folder / "slow.png").open("wb", buffering=0) as file:
            for at in range(0, len(data), len(data) // 8):
                file.write(data[at : at + len(data) // 8])
                time.sleep(0.3)

    run = started(*words)
    until(["a.png"])
    writer = Thread(target=slowly, args=[(frozen / "golden" / "07-larger.png").read_bytes()])
    writer.start()
    shutil.copy(frozen / "golden" / "04-wide.png", folder / "b.png")
    until(["a.png", "b.png"])
    writer.join()
    until(["a.png", "b.png", "slow.png"])
    run.kill()
    run.communicate()

    run = started(*words)
    shutil.copy(frozen / "golden" / "04-wide.png", folder / "c.png")
    until(["a.png", "b.png", "slow.png", "c.png"])
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=20)
    assert run.returncode == 130
    assert beside_trust(error).startswith("Interrupted: 1 answered")
    assert {each["status"] for each in answers(out.read_text())} == {"ok"}
    assert len(list((folder / "maps").iterdir())) == 4


def test_watching_what_is_no_folder(frozen, called, tmp_path):
    pytest.importorskip("watchfiles", reason="watchfiles, of the watch extra, tells of changes")
    done = called("infer", "-b", frozen, "--watch", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.startswith("error [input-missing]: ")
