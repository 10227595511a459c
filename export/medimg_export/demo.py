"""The whole way on synthetic radiographs, in a few minutes and without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import GateError, Rejected, RunError, WriteError
from medimg_edge.golden import verify
from medimg_edge.heatmap import encode_png, overlay
from medimg_export import phantoms
from medimg_export.evaluate import evaluate
from medimg_export.export import export
from medimg_export.prepared import Progress, prepare
from medimg_export.recipe import DEFAULT, override
from medimg_export.run import make_run
from medimg_export.trained_model import trained_model

FILE_SIZE = 256
"""Pixels of the files; the network sees ``INPUT_SIZE``, so that every step has something to do."""
INPUT_SIZE = 64
EPOCHS = 18
SHOWN = 4

RECIPE = override(
    DEFAULT,
    card={
        "name": "phantom-opacity",
        "intended_use": "A demonstration on synthetic radiographs. Never for patients.",
        "modality": ("DX",),
        "body_part": ("CHEST",),
        "data_source": "medimg-edge data phantom",
    },
    data={"group_pattern": phantoms.GROUP_PATTERN},
    pixels={"size": INPUT_SIZE},
    training={"backbone": "tiny", "epochs": EPOCHS, "patience": EPOCHS},
)


def demo(
    out: Path,
    *,
    count: int = 1200,
    seed: int = 0,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> float:
    """Make phantoms, train, export, verify, and answer held-out files; returns the held-out AUC.

    Raises RunError where ``out`` holds files, and whatever a step raises.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists already. Name another folder with --out, or remove it.")
    data, run, bundle = out / "phantoms", out / "run", out / "bundle"

    say(f"1/5  {count} synthetic chest radiographs, half of them with opacities")
    phantoms.write(
        data,
        count,
        size=FILE_SIZE,
        seed=seed,
        progress=lambda done, total: progress("phantoms", done, total) if progress else None,
    )
    say(f"2/5  training: {EPOCHS} epochs at {INPUT_SIZE} pixels")
    recipe = override(RECIPE, training={"seed": seed})
    make_run(prepare(data, recipe, progress), run, progress=progress)
    say("3/5  export: ONNX and TFLite, float32 and int8, each through its gates")
    exported = export(trained_model(run, progress=progress), bundle, progress=progress)
    for row in exported.rows:
        say(f"       {row.artifact:<18} {row.bytes:>9,} bytes   max |dp| {row.max_dp:.1e}")

    say("4/5  verify: the golden set through every artifact")
    failed = [check for check in verify(Bundle.open(bundle)) if check.status == "failed"]
    if failed:
        raise GateError(f"{failed[0].artifact}: {failed[0].message}")
    found = evaluate(bundle, data, out / "evaluation", progress=progress)
    auc = found.metrics.values["auc"].value
    if auc is None:
        raise RunError("The held-out phantoms have one class only. Make more with --count.")

    say("5/5  infer: held-out PNG and DICOM files, with heatmaps")
    for line in _answer(Classifier(bundle), data, out / "heatmaps"):
        say(f"       {line}")
    say("")
    say(f"Held-out AUC: {auc:.4f} on {found.metrics.n} phantoms that training never saw")
    for what, where in (
        ("radiographs", data),
        ("training report", run / "report.html"),
        ("bundle", bundle),
        ("held-out report", out / "evaluation" / "report.html"),
        ("heatmaps", out / "heatmaps"),
    ):
        say(f"{what:<16} {where}")
    return auc


def _answer(classifier: Classifier, data: Path, heatmaps: Path) -> list[str]:
    """Answer a few held-out files of each kind; one line each, a heatmap beside it."""
    lines = []
    for folder, suffix in (("test", "png"), ("test-dicom", "dcm")):
        for kind in phantoms.KINDS["chest"].classes:
            answered = 0
            for path in sorted((data / folder / kind).glob(f"*.{suffix}")):
                shown = f"{path.relative_to(data)}"
                try:
                    found = classifier.predict(path)
                except Rejected as error:
                    lines.append(f"{shown:<40} rejected: {error.code}")
                    continue
                assert found.heatmap is not None
                picture = encode_png(overlay(found.pixels, found.heatmap[..., 0]))
                try:
                    heatmaps.mkdir(exist_ok=True)
                    (heatmaps / f"{path.name}.{found.label}.png").write_bytes(picture)
                except OSError as error:
                    raise WriteError(f"{heatmaps} was not written: {error.strerror}.") from error
                lines.append(f"{shown:<40} p = {found.probability:.3f}  {found.decision}")
                answered += 1
                if answered == SHOWN // 2:
                    break
    return lines
