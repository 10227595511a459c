"""The demo, shortened: everything that it promises lies where it says."""

from pathlib import Path

import pytest

from medimg_edge.bundle import Bundle
from medimg_edge.errors import RunError
from medimg_export import demo
from medimg_export.recipe import override


def test_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "FILE_SIZE", 64)
    monkeypatch.setattr(
        demo, "RECIPE", override(demo.RECIPE, pixels={"size": 32}, training={"epochs": 3})
    )
    said: list[str] = []
    auc = demo.demo(tmp_path / "demo", count=160, say=said.append)
    assert 0 <= auc <= 1
    assert sorted(each.name for each in (tmp_path / "demo").iterdir()) == [
        "bundle",
        "evaluation",
        "heatmaps",
        "phantoms",
        "run",
    ]
    manifest = Bundle.open(tmp_path / "demo" / "bundle").manifest
    assert manifest.name == "phantom-opacity"
    assert "Never for patients" in manifest.intended_use
    shown = [line for line in said if " p = " in line]
    assert len([line for line in shown if ".png" in line]) == demo.SHOWN
    assert len([line for line in shown if ".dcm" in line]) == demo.SHOWN
    heatmaps = list((tmp_path / "demo" / "heatmaps").iterdir())
    assert len(heatmaps) == len(shown)
    assert all(path.name.endswith(".opacity.png") for path in heatmaps)
    assert any(line.startswith(f"Held-out AUC: {auc:.4f} on ") for line in said)
    for line in said[-5:]:
        assert Path(line[17:]).exists(), line


def test_a_folder_with_files_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").touch()
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(RunError, match="exists already"):
            demo.demo(out, say=lambda line: None)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
