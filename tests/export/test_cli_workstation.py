"""The workstation's commands as their user runs them: tables, exit codes, one line for an error."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from medimg_edge.bundle import Bundle
from medimg_export import phantoms
from medimg_export.metrics import Metrics
from medimg_export.run import Run

Arrays = Callable[..., Path]


def command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``medimg-edge`` in a process of its own; no traceback, ever."""
    done = subprocess.run(
        [sys.executable, "-m", "medimg_edge.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | environment,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "error [unexpected]" not in done.stderr, done.stderr
    return done


def write_images(root: Path, classes: dict[str, int]) -> Path:
    random = np.random.default_rng(0)
    for label, count in classes.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (32, 32), np.uint8)
            cv2.imwrite(str(root / label / f"{number}.png"), pixels)
    return root


# --- data that cannot be trained on ---


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess]:
    """What the commands say of bad data; all of them at the same time."""
    root = tmp_path_factory.mktemp("bad")
    rows = write_images(root / "rows", {"a": 3, "b": 3})
    (rows / "labels.csv").write_text("path,label\na/0.png,normal\nb/0.png,sick\nb/9.png,sick\n")
    (root / "bad.toml").write_text("[training]\nepoch = 3\n")
    unknown = write_images(root / "unknown", {"left": 9, "right": 9})
    foreign = root / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").touch()
    commands = {
        "nothing there": ("check", root / "nothing"),
        "one class": ("check", write_images(root / "one", {"sick": 9})),
        "one image": ("check", write_images(root / "few", {"normal": 1, "sick": 1})),
        "unknown positive": ("check", unknown),
        "row without a file": ("check", rows / "labels.csv"),
        "recipe": ("check", unknown, "--recipe", root / "bad.toml"),
        "train": ("train", unknown, "--out", root / "run"),
        "foreign folder": ("train", unknown, "--out", foreign, "--positive", "left"),
    }

    def run(words: tuple) -> subprocess.CompletedProcess:
        name, *rest = words
        return command(*(["data", "check"] if name == "check" else ["train"]), *rest, "--size", 32)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(run, commands.values()), strict=True))


@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        ("nothing there", "data-missing", "Give a folder of class folders"),
        ("one class", "data-too-few", "1 class .sick.; at least two"),
        ("one image", "data-too-few", "has 1 usable images"),
        ("unknown positive", "data-positive", "--positive 'right'"),
        ("row without a file", "data-invalid", r"1 files that do not exist: b/9\.png"),
        ("recipe", "recipe", "epoch"),
        ("train", "data-positive", "--positive 'right'"),
        ("foreign folder", "run", "holds other files"),
    ],
)
def test_bad_data_is_one_line_with_its_code(refusals, case: str, code: str, message: str):
    done = refusals[case]
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error [{code}]: ")
    assert re.search(message, line)


# --- data ---


def test_phantoms_are_written_and_checked(called: Callable, tmp_path: Path):
    done = called("data", "phantom", tmp_path / "p", "--count", 20, "--size", 40, "--seed", 3)
    assert done.returncode == 0
    assert f"20 phantoms in {tmp_path / 'p'}." in done.stdout
    phantoms.write(tmp_path / "same", 20, size=40, seed=3)
    for path in (tmp_path / "same").rglob("*.png"):
        other = tmp_path / "p" / path.relative_to(tmp_path / "same")
        assert other.read_bytes() == path.read_bytes()
    done = called("data", "phantom", tmp_path / "p", "--count", 20)
    assert done.returncode == 1
    assert done.stderr.startswith("error [data-invalid]: ")


def test_check_says_what_is_in_a_data_set_and_what_is_wrong(called: Callable, tmp_path: Path):
    data = write_images(tmp_path / "data", {"normal": 20, "sick": 10})
    (data / "sick" / "text.png").write_text("not an image")
    done = called("data", "check", data, "--size", 32)
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["split", "images", "normal", "sick", "patients"]
    table = {line[0]: line[1:4] for line in lines[2:5]}
    assert sum(int(row[1]) for row in table.values()) == 20
    assert sum(int(row[2]) for row in table.values()) == 10
    assert "30 of 31 images can be used." in done.stdout
    assert re.search(r"sick/text\.png: .* \[input-not-an-image\]", done.stdout)
    assert "note: 'sick' is the positive label" in done.stdout
    grouped = called("data", "check", data, "--size", 32, "--group-pattern", r"(\d+)")
    assert "unknown" not in grouped.stdout


def test_names_that_are_not_text(called: Callable, arrays: Arrays, tmp_path: Path):
    """Linux allows any bytes in a name; reports and JSON do not."""
    names = (b"sick\xff", b"normal")
    rng = np.random.default_rng(0)
    for bright, name in enumerate(names):
        folder = os.path.join(os.fsencode(tmp_path), b"data", name)
        os.makedirs(folder)
        for number in range(30):
            pixels = rng.integers(bright * 100, 100 + bright * 100, (32, 32), dtype=np.uint8)
            with open(os.path.join(folder, b"im\xe9ge%d.png" % number), "wb") as file:
                file.write(cv2.imencode(".png", pixels)[1].tobytes())
    data, run = tmp_path / "data", tmp_path / "run"
    done = called("train", data, "--out", run, "--size", 32, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "sick\\udcff/im\\udce9ge" in (run / "report.html").read_text()
    assert msgspec.json.decode((run / "run.json").read_bytes())["labels"] == [
        "normal",
        "sick\\udcff",
    ]


def test_get_without_a_network_says_what_to_do(tmp_path: Path):
    nowhere = "http://127.0.0.1:9"
    done = command(
        "data", "get", "pneumoniamnist", "--out", tmp_path, https_proxy=nowhere, HTTPS_PROXY=nowhere
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error [data-download]: ")
    assert "zenodo.org" in line
    assert str(tmp_path) in line
    assert list(tmp_path.iterdir()) == []


def test_get_names_the_sets_there_are(called: Callable):
    done = called("data", "get", "kneemnist")
    assert done.returncode == 1
    assert "pneumoniamnist" in done.stderr


# --- train ---


def test_options_become_the_recipe(called: Callable, arrays: Arrays, tmp_path: Path):
    (tmp_path / "base.toml").write_text(
        "[card]\nversion = '2.0'\n[training]\nseed = 9\nbatch = 5\n[pixels]\ncolor = 'rgb'\n"
    )
    options = (
        "--recipe base.toml --labels no,yes --positive yes --size 30 --geometry letterbox "
        "--epochs 0 --batch 7 --learning-rate 0.5 --balance sampling --no-flip "
        "--sensitivity 0.9 --name my-model --backbone baseline --drop-overlap"
    ).replace("base.toml", str(tmp_path / "base.toml"))
    data = arrays([0, 1] * 30)
    done = called("train", data, "--out", tmp_path / "run", *options.split())
    assert done.returncode == 0, done.stderr
    assert "AUC" in done.stdout
    assert f"medimg-edge export {tmp_path / 'run'}" in done.stdout
    recipe = Run.open(tmp_path / "run").record.recipe
    assert (recipe.card.name, recipe.card.version) == ("my-model", "2.0")
    assert recipe.data.labels == ("no", "yes")
    assert (recipe.data.positive, recipe.data.drop_overlap) == ("yes", True)
    assert (recipe.pixels.size, recipe.pixels.color) == (30, "rgb")
    assert recipe.pixels.geometry == "letterbox"
    training = recipe.training
    assert (training.epochs, training.batch, training.seed) == (0, 7, 9)
    assert (training.learning_rate, training.balance) == (0.5, "sampling")
    assert training.backbone == "baseline"
    assert not training.augmentation.flip
    assert recipe.decision.sensitivity == 0.9
    again = called("train", data, "--out", tmp_path / "run", *options.split())
    assert again.returncode == 1
    assert again.stderr.startswith("error [run]: ")
    assert "--resume" in again.stderr


@pytest.mark.slow
def test_a_killed_training_is_resumed_to_the_same_weights(
    called: Callable, run: Run, phantom_data: Path, tmp_path: Path
):
    """As ``run`` was trained in this process, without an interruption."""
    words = ["train", phantom_data, "--out", tmp_path / "run", "--size", 32, "--epochs", 4]
    (tmp_path / "recipe.toml").write_text(
        "[card]\nintended_use = 'For tests.'\nmodality = ['DX']\n"
        f"[data]\ngroup_pattern = '{phantoms.GROUP_PATTERN}'\n"
    )
    words += ["--recipe", tmp_path / "recipe.toml"]
    process = subprocess.Popen(
        [sys.executable, "-m", "medimg_edge.cli", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoint.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "run.json").exists()

    refused = called("export", tmp_path / "run", "--out", tmp_path / "bundle")
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    done = called(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert [int(each) for each in re.findall(r"train +(\d+) +loss", done.stderr)] == [1, 2, 3, 4]
    resumed = Run.open(tmp_path / "run")
    assert resumed.record.recipe == run.record.recipe
    one, other = (each.model().get_weights() for each in (resumed, run))
    assert [value.tobytes() for value in one] == [value.tobytes() for value in other]
    assert resumed.record.decision == run.record.decision


def test_quiet_says_the_result_alone(called: Callable, arrays: Arrays, tmp_path: Path):
    words = ["train", arrays([0, 1] * 20), "--labels", "no,yes", "--epochs", 0]
    log = tmp_path / "log.txt"
    done = called("--quiet", "--log-file", log, *words, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "validation" in done.stdout
    assert "started: " in log.read_text()
    assert "note: " in log.read_text()


# --- export and evaluate ---


def test_a_finished_export_replaces_the_old_bundle_and_prints_its_table(
    called: Callable, run: Run, bundle: Path, tmp_path: Path
):
    out = shutil.copytree(bundle, tmp_path / "out" / "bundle")
    done = called("export", run.path, "--out", out, "--name", "second")
    assert done.returncode == 0, done.stderr
    turned_away, missing = done.stderr.splitlines()
    assert "validation images" in turned_away
    assert "the model card does not state" in missing
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == [
        "model.onnx",
        "model.tflite",
        "model.int8.onnx",
        "model.int8.tflite",
    ]
    assert "max |dp|" in lines[0]
    assert "Every gate passed." in done.stdout
    opened = Bundle.open(out)
    opened.check_contents()
    assert opened.manifest.name == "second"
    assert [each.name for each in out.parent.iterdir()] == ["bundle"]


def test_a_gate_that_fails_is_exit_1_and_nothing_is_written(
    called: Callable, run: Run, tmp_path: Path
):
    out = tmp_path / "out" / "bundle"
    done = called("export", run.path, "--out", out, "--float32-dp", "-1")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error [export-gate]: model.onnx is refused by the gate probability")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["{tmp}/nothing"], "run"),
        (["{tmp}"], "run"),
        (["{run}/model.keras"], "recipe"),
        (["{run}", "--name", "my model"], "recipe"),
        (["{run}", "--data", "{tmp}/nothing"], "data-missing"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    called: Callable, run: Run, tmp_path: Path, words: list[str], code: str
):
    words = [word.format(tmp=tmp_path, run=run.path) for word in words]
    done = called("export", *words, "--out", tmp_path / "bundle")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error [{code}]: ")
    assert not (tmp_path / "bundle").exists()


def test_evaluate_prints_and_writes_its_metrics(
    called: Callable, bundle: Path, phantom_data: Path, tmp_path: Path
):
    words = ["evaluate", bundle, phantom_data, "--out", tmp_path / "out", "--bootstrap", 50]
    words += ["--subgroup-pattern", "(normal|opacity)/", "--looks", tmp_path / "looks.csv"]
    done = called(*words, "--artifact", "model.onnx")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^opacity \(\d+ images\): sensitivity ", done.stdout, re.M)
    assert (tmp_path / "looks.csv").read_text().count("model.onnx,") == 1
    found = msgspec.json.decode((tmp_path / "out" / "metrics.json").read_bytes(), type=Metrics)
    auc = found.values["auc"]
    assert done.stdout.startswith("on 36 images ")
    assert re.search(rf"^AUC +{auc.value:.3f} +{auc.low:.3f} to {auc.high:.3f}$", done.stdout, re.M)
    assert f"Look at {tmp_path / 'out' / 'report.html'}" in done.stdout
    assert "\n36 images of 36 patients. Prevalence: opacity 50.0%.\n" in done.stdout
    refused = called(*words, "--split", "none")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error [data-invalid]: ")


def test_compare_prints_what_differs_and_between_whom(
    called: Callable, bundle: Path, phantom_data: Path, tmp_path: Path
):
    for artifact, split in (("model.onnx", "test"), ("model.int8.onnx", "all")):
        words = ["--artifact", artifact, "--split", split, "--bootstrap", 10]
        assert called(
            "evaluate", bundle, phantom_data, "--out", tmp_path / artifact, *words
        ).returncode == 0  # fmt: skip
    folders = [tmp_path / "model.onnx", tmp_path / "model.int8.onnx"]
    done = called("compare", *folders, "--out", tmp_path / "out", "--bootstrap", 50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("on 36 images ")
    assert re.search(r"^AUC .* to .* DeLong$", done.stdout, re.M)
    assert len(re.findall(r"McNemar$", done.stdout, re.M)) == 3
    assert "A is model.onnx, B is model.int8.onnx." in done.stdout
    assert "\n36 images of 36 patients. Prevalence: opacity 50.0%.\n" in done.stdout
    assert "204 images that only one has are left out: 0 of A's, 204 of B's." in done.stdout
    assert f"Look at {tmp_path / 'out' / 'report.html'}" in done.stdout
    refused = called("compare", *folders, "--out", folders[0])
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error [write]: ")


def test_a_profile_is_measured_where_it_is_asked_for(
    called: Callable, bundle: Path, phantom_data: Path, tmp_path: Path
):
    words = ["evaluate", bundle, phantom_data, "--out", tmp_path / "out", "--bootstrap", 10]
    assert "no site profile" in called(*words, "--profile", "auto").stderr
    assert "no site profile" not in called(*words, "--profile", "none").stderr
    refused = called(*words, "--profile", tmp_path / "nothing.json")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error [bundle-profile]: ")


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_negative_number_of_resamples_is_exit_2(called: Callable, tmp_path: Path, command: str):
    done = called(command, tmp_path, tmp_path, "--out", tmp_path / "out", "--bootstrap", -5)
    assert done.returncode == 2
    assert "--bootstrap" in done.stderr


def test_a_wrong_option_is_exit_2(called: Callable, tmp_path: Path):
    for words in (
        ["train"],
        ["train", tmp_path, "--out", tmp_path / "run", "--balance", "maybe"],
        ["train", tmp_path, "--out", tmp_path / "run", "--epochs", "many"],
        ["export", tmp_path],
        ["data", "fetch"],
    ):
        assert called(*words).returncode == 2


# --- without the extra ---

EXTRA = ("tensorflow", "keras", "tf2onnx", "onnx", "sklearn", "scipy", "matplotlib", "pooch")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "data", "--out", "run"],
        ["export", "run", "--out", "bundle"],
        ["evaluate", "bundle", "data", "--out", "out"],
        ["compare", "a", "b", "--out", "out"],
        ["demo"],
        ["data", "check", "data"],
        ["data", "get", "pneumoniamnist"],
    ],
    ids=lambda words: words[0] if words[0] != "data" else f"data {words[1]}",
)
def test_without_the_extra_the_line_that_installs_it_is_said(tmp_path: Path, words: list[str]):
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRA!r}))\n"
        "from medimg_edge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error [extra-missing]: ")
    assert line.endswith("pip install 'medimg-edge[export]'")
    assert list(tmp_path.iterdir()) == []
