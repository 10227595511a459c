"""Two folders compared: both files, and nothing written where it must not be."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from medimg_edge.errors import DataInvalid, RunError, WriteError
from medimg_export.answers import answers_of, read_answers
from medimg_export.compare import compare
from medimg_export.comparison import Comparison
from medimg_export.evaluate import evaluate
from medimg_export.run import Run


@pytest.fixture(scope="module")
def folders(
    bundle: Path, phantom_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """One bundle's float32 and int8 answers to the same test images."""
    root = tmp_path_factory.mktemp("compare")
    for artifact in ("model.onnx", "model.int8.onnx"):
        evaluate(bundle, phantom_data, root / artifact, artifact=artifact, bootstrap=10)
    return root / "model.onnx", root / "model.int8.onnx"


def test_two_evaluations(folders: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "deep" / "out"
    found = compare(*folders, out, bootstrap=50)
    assert sorted(each.name for each in out.iterdir()) == ["comparison.json", "report.html"]
    stored = msgspec.json.decode((out / "comparison.json").read_bytes(), type=Comparison)
    assert stored == found
    assert (found.n, found.a.left_out, found.b.left_out) == (36, 0, 0)
    assert (found.a.name, found.b.name) == ("model.onnx", "model.int8.onnx")
    of_a, of_b = (read_answers(folder) for folder in folders)
    assert of_a.names == of_b.names
    apart = of_a.called != of_b.called
    assert len(found.disagreements) == apart.sum()


def test_a_run_with_itself_and_with_an_evaluation_of_its_validation(
    run: Run, bundle: Path, phantom_data: Path, tmp_path: Path
):
    """What Keras answered in training, and what the device answers: the same decisions."""
    evaluate(bundle, phantom_data, tmp_path / "val", artifact="model.onnx", split="val")
    found = compare(run.path, tmp_path / "val", tmp_path / "out", bootstrap=20)
    assert (found.n, found.a.left_out, found.b.left_out) == (30, 0, 0)
    assert found.disagreements == ()
    assert found.findings[0].values["auc"].difference.value == 0


def test_equal_names_are_told_apart_by_their_paths(folders: tuple[Path, Path], tmp_path: Path):
    copy = shutil.copytree(folders[0], tmp_path / "model.onnx")
    found = compare(folders[0], copy, tmp_path / "out", bootstrap=10)
    assert (found.a.name, found.b.name) == (str(folders[0]), str(copy))


def test_a_run_or_an_evaluation_is_not_overwritten(folders: tuple[Path, Path]):
    before = (folders[0] / "report.html").read_bytes()
    with pytest.raises(WriteError, match="holds a run or an evaluation"):
        compare(*folders, folders[0])
    assert (folders[0] / "report.html").read_bytes() == before


def test_what_cannot_be_compared_writes_nothing(folders: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(RunError, match=r"holds no metrics\.json"):
        compare(folders[0], tmp_path, tmp_path / "out")
    other = shutil.copytree(folders[0], tmp_path / "other")
    of = read_answers(other)
    answers_of(of.task, of.labels, of.names, of.groups, np.abs(1 - of.y), of.p, None).write(other)
    with pytest.raises(DataInvalid, match="truth differs"):
        compare(folders[0], other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        compare(*folders, tmp_path / "file", bootstrap=10)
