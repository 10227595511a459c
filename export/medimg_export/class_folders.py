"""DATA/<class>/... or DATA/<split>/<class>/... -> Listing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from medimg_edge.errors import DataInvalid, NoImages
from medimg_edge.reader import find_images
from medimg_export.listing import SPLIT_NAMES, Listing, Problem, Row, first_few

LAYOUTS = "<class>/<image> or <train|val|test>/<class>/<image>"


def list_class_folders(root: Path) -> Listing:
    """Every image below a class folder, at any depth, in the order of its path.

    The first level is splits if one folder is called "train" or all of them are called like splits.
    Raises DataInvalid (no class folder with an image in it).
    """
    try:
        found = [path.relative_to(root) for path in find_images(root)]
    except NoImages as error:
        raise DataInvalid(f"{error} A data set is laid out as {LAYOUTS}.") from error
    images = [path for path in found if not _is_litter(path)]
    depth = 1 if _has_splits(images) else 0
    placed = [path for path in images if _in_class_folder(path, depth)]
    if not placed:
        raise DataInvalid(
            f"{root} holds {len(images)} images, but none in a class folder "
            f"({first_few(map(Path.as_posix, images))}). Lay them out as {LAYOUTS}."
        )
    rows = [
        Row(
            path.as_posix(),
            root / path,
            (path.parts[depth],),
            SPLIT_NAMES[path.parts[0].lower()] if depth else None,
        )
        for path in sorted(placed)
    ]
    return Listing(rows, problems=_left_out(root, images, placed, depth))


def _is_litter(path: Path) -> bool:
    """What file managers and macOS archives leave behind."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _has_splits(images: list[Path]) -> bool:
    first = {path.parts[0].lower() for path in images if len(path.parts) > 1}
    return "train" in first or (bool(first) and first <= set(SPLIT_NAMES))


def _in_class_folder(path: Path, depth: int) -> bool:
    return len(path.parts) > depth + 1 and (depth == 0 or path.parts[0].lower() in SPLIT_NAMES)


def _left_out(
    root: Path, images: list[Path], placed: list[Path], depth: int
) -> tuple[Problem, ...]:
    """What lies in the folder and is not a sample: said, so that nobody misses it later."""
    problems = []
    stray = sorted(path.as_posix() for path in set(images) - set(placed))
    if stray:
        problems.append(
            Problem(
                str(root),
                "data-outside-class",
                f"{len(stray)} images lie in no class folder and were left out: "
                f"{first_few(stray)}. Accepted is {LAYOUTS}.",
            )
        )
    files = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    others = [
        path for path in files - set(images) if len(path.parts) > depth + 1 and not _is_litter(path)
    ]
    if others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in others)
        problems.append(
            Problem(
                str(root),
                "data-not-an-image",
                f"{len(others)} files in class folders are not images by their names and were "
                "left out: "
                + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
                + f" (such as {min(path.as_posix() for path in others)}).",
            )
        )
    return tuple(problems + _empty_classes(root, placed, depth))


def _empty_classes(root: Path, placed: list[Path], depth: int) -> list[Problem]:
    used = {path.parts[: depth + 1] for path in placed}
    folders = (
        path.relative_to(root) for path in root.glob("/".join("*" * (depth + 1))) if path.is_dir()
    )
    return [
        Problem(
            folder.as_posix(),
            "data-label-unused",
            f"The class folder {folder.as_posix()} holds no images and was left out.",
        )
        for folder in sorted(folders)
        if folder.parts not in used
        and not _is_litter(folder)
        and (depth == 0 or folder.parts[0].lower() in SPLIT_NAMES)
    ]
