"""What `device.py` found, as the rows that it must reach and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from processes import ratio

MB = 2**20
KINDS = {
    "JPEG": "JPEG of the input's size",
    "full JPEG": "full-size JPEG",
    "full PNG": "full-size PNG, 16 bits",
    "full DICOM": "full-size DICOM, 12 bits",
}
SUFFIXES = dict(zip(KINDS, ("jpg", "jpg", "png", "dcm"), strict=True))
Found = dict[str, Any]


def median(values: Iterable[float]) -> float:
    """Of a few rounds."""
    return statistics.median(values)


def middle(rounds: Sequence[Found], what: str) -> float:
    """The median of one thing over rounds."""
    return median(each[what] for each in rounds)


def against(rounds: Found, what: str, name: str = "medimg-edge", other: str = "floor") -> float:
    """The median ratio of two contestants within the rounds."""
    return ratio([each[what] for each in rounds[name]], [each[what] for each in rounds[other]])


# What it must reach


def targets(found: Found) -> list[Found]:
    """The rows, each with what was reached in this run; None where it could not be measured."""
    start, folders, memory = found["cold"], found["folders"], found["memory"]
    loops = found["warm"]["file to answer"]["JPEG"]
    rate = {kind: against(each, "wall", "floor", "medimg-edge") for kind, each in folders.items()}
    of = {kind: f"{each['images']:,}" for kind, each in folders.items()}
    small = found["small"]
    peak = None if "missing" in small else small["peak"] / MB
    return [
        at_most("cold `infer` of one image, wall, against the floor's process",
                against(start["JPEG"], "wall"), 1.35, 1.15),
        at_most("the same, peak memory", against(start["JPEG"], "peak"), 1.20, 1.10),
        at_most("`--help`, wall, against `python -c 'import typer'`",
                against(start["--help"], "wall"), 1.5, 1.2),
        at_most("warm `predict`, file to Prediction, against the floor's loop",
                against(loops, "wall"), 1.08, 1.00),
        at_least(f"folder of {of['JPEG']} JPEGs, images per second, against the floor's loop at "
                 "one thread", rate["JPEG"], 1.7, 1.9),
        at_least(f"folder of {of['full JPEG']} full-size JPEGs, the same",
                 rate["full JPEG"], 1.8, 3),
        at_most("fastest int8 network, any runtime, against the fastest float32 one",
                int8_against_float32(found), 0.65, 0.5),
        at_most("what `tune` picks, network alone, against the fastest peer",
                tuned_against_peers(found), 1.10, 1.00),
        at_most(f"memory after {memory['images']:,} images, MB more than at {memory['since']}",
                memory["bytes"] / MB, 8, 2),
        at_most(f"a quarter of one core, 512 MB, {small.get('images', 0):,} images: peak, MB",
                peak, 200, 150, small.get("missing", "")),
        at_most("idle: loaded and waiting, share of a core",
                found["warm"]["idle"]["medimg-edge"], 0, 0),
    ]  # fmt: skip


def at_most(what: str, reached: float | None, must: float, aim: float, why: str = "") -> Found:
    """A row whose smaller values are better."""
    met = "not measured" if reached is None else _met(reached <= must, reached <= aim)
    return {"what": what, "reached": reached, "must": f"<= {must}", "aim": f"<= {aim}"} | {
        "met": f"{met}: {why}" if why else met
    }


def at_least(what: str, reached: float, must: float, aim: float) -> Found:
    """A row whose larger values are better."""
    met = _met(reached >= must, reached >= aim)
    return {"what": what, "reached": reached, "must": f">= {must}", "aim": f">= {aim}", "met": met}


def _met(must: bool, aim: bool) -> str:
    return "yes, the aim too" if must and aim else "yes" if must else "no"


def int8_against_float32(found: Found) -> float | None:
    """The network alone, each by its fastest runtime; None where the bundle has one kind."""
    rounds, precisions = found["warm"]["network"], found["machine"]["artifacts"]
    of: dict[str, list[str]] = {"int8": [], "float32": []}
    for name in rounds:
        artifact = name.split(", ")[1] if ", " in name else ""
        if artifact in precisions:
            of[precisions[artifact]].append(name)
    if not of["int8"] or not of["float32"]:
        return None
    return against(rounds, "wall", fastest(rounds, of["int8"]), fastest(rounds, of["float32"]))


def tuned_against_peers(found: Found) -> float | None:
    """None where there is no ``tune``, or no peer."""
    rounds = found["warm"]["network"]
    peers = [name for name in rounds if name.startswith(("OpenVINO", "LiteRT", "TensorFlow"))]
    if "medimg-edge as tuned" not in rounds or not peers:
        return None
    return against(rounds, "wall", "medimg-edge as tuned", fastest(rounds, peers))


def fastest(rounds: Found, names: Sequence[str]) -> str:
    """The one with the smallest median."""
    return min(names, key=lambda name: middle(rounds[name], "wall"))


# Markdown


def report(found: Found) -> str:
    """Everything, ready for docs/performance.md."""
    parts = [
        ("", _machine(found["machine"])),
        ("What it must reach", _targets(found["targets"])),
        ("Cold: a process for one image", _cold(found["cold"])),
        ("Where a cold start goes", _stages(found["stages"])),
        ("Imports, by `-X importtime`", _imports(found["imports"])),
        ("Warm: from the file to the answer", _warm(found["warm"])),
        ("The network alone", _network(found["warm"])),
        ("Folders", _folders(found["folders"])),
        ("Size", _sizes(found["sizes"])),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" if title else text for title, text in parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def _machine(machine: Found) -> str:
    versions = ", ".join(f"{name} {each}" for name, each in machine["versions"].items())
    least, half, most = machine["full-size"]
    quick = " A quick run: too few rounds for a figure." if machine["quick"] else ""
    return (
        f"{machine['processor']}, {machine['architecture']}, {machine['cores']} cores "
        f"({', '.join(machine['features'])}), {machine['memory'] / 2**30:.0f} GB, load "
        f"{machine['load']:.1f} before it began; {machine['system']}, Python {machine['python']}.\n"
        f"Bundle {machine['bundle']}, {machine['artifact']}, input {machine['input']}; commit "
        f"{machine['commit']}. Full-size: {least:.1f} to {most:.1f} megapixels, median "
        f"{half:.1f}.{quick}\n\n{versions}."
    )


def _targets(rows: Sequence[Found]) -> str:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    header = ("what", "reached", "must", "aim", "met")
    return _table(
        header,
        [
            (row["what"], number(row["reached"]), row["must"], row["aim"], row["met"])
            for row in rows
        ],
    )


def _cold(cold: Found) -> str:
    header = ("file", "floor, ms", "medimg-edge, ms", "wall", "CPU", "floor, MB", "MB", "memory")
    return _table(
        header,
        [
            (
                KINDS.get(kind, f"`{kind}`, against `import typer`"),
                _milliseconds(middle(rounds["floor"], "wall")),
                _milliseconds(middle(rounds["medimg-edge"], "wall")),
                f"{against(rounds, 'wall'):.2f}",
                f"{against(rounds, 'cpu'):.2f}",
                *_peaks(rounds),
            )
            for kind, rounds in cold.items()
        ],
    )


def _peaks(rounds: Found) -> tuple[str, str, str]:
    floor, ours = (middle(rounds[name], "peak") / MB for name in ("floor", "medimg-edge"))
    if not floor or not ours:  # less than this process: not known
        return "", "", ""
    return f"{floor:.0f}", f"{ours:.0f}", f"{against(rounds, 'peak'):.2f}"


def _stages(stages: Sequence[Sequence[Any]]) -> str:
    whole = sum(each[1] for each in stages)
    rows = [(name, f"{ms:.1f}", f"{ms / whole:.0%}", f"{mb:.0f}") for name, ms, mb in stages]
    return _table(("stage", "ms", "share", "MB held after it"), rows)


def _imports(imports: dict[str, dict[str, float]]) -> str:
    ours, by_hand = imports["medimg-edge"], imports["floor"]
    rows = [
        (package, f"{by_hand.get(package, 0):.1f}", f"{ms:.1f}")
        for package, ms in sorted(ours.items(), key=lambda each: -each[1])
    ]
    total = ("all", f"{sum(by_hand.values()):.1f}", f"{sum(ours.values()):.1f}")
    return _table(("package", "floor, ms", "medimg-edge, ms"), [*rows, total])


def _warm(warm: Found) -> str:
    loops = warm["file to answer"]
    rows = [
        (
            name,
            warm["runtimes"][name],
            _milliseconds(middle(rounds, "wall")),
            f"{against(loops['JPEG'], 'wall', name):.2f}",
            f"{against(loops['JPEG'], 'cpu', name):.2f}",
            f"{warm['peak'][name] / MB:.0f}",
            f"{warm['idle'][name]:.1%}",
        )
        for name, rounds in loops["JPEG"].items()
    ]
    header = ("contestant", "runtime", "ms", "wall", "CPU", "peak, MB", "idle")
    missing = [f"- {name}: {why}" for name, why in warm["missing"].items()]
    full = [
        (
            KINDS[kind],
            _milliseconds(middle(rounds["floor"], "wall")),
            _milliseconds(middle(rounds["medimg-edge"], "wall")),
            f"{against(rounds, 'wall'):.2f}",
            f"{against(rounds, 'cpu'):.2f}",
        )
        for kind, rounds in loops.items()
    ]
    return "\n\n".join(
        [
            "Wall and CPU against the floor.",
            _table(header, rows),
            *(["Not there:", "\n".join(missing)] if missing else []),
            _table(("file", "floor, ms", "medimg-edge, ms", "wall", "CPU"), full),
        ]
    )


def _network(warm: Found) -> str:
    rounds = warm["network"]
    first = fastest(rounds, list(rounds))
    rows = [
        (
            name,
            _milliseconds(middle(each, "wall")),
            f"{against(rounds, 'wall', name, first):.2f}",
            f"{each[0]['answers'][0]:.4f}",
        )
        for name, each in sorted(rounds.items(), key=lambda one: middle(one[1], "wall"))
    ]
    return _table(("contestant", "ms", "against the fastest", "answer to the same noise"), rows)


def _folders(folders: Found) -> str:
    rows = [
        (
            f"{each['images']:,} x {KINDS[kind]}",
            name,
            f"{each['images'] / middle(each[name], 'wall'):.0f}",
            f"{against(each, 'wall', 'floor', name):.2f}",
            f"{against(each, 'cpu', name):.2f}",
            f"{middle(each[name], 'peak') / MB:.0f}",
        )
        for kind, each in folders.items()
        for name in each
        if name != "images"
    ]
    return _table(("folder", "contestant", "images/s", "rate", "CPU", "peak, MB"), rows)


def _sizes(sizes: dict[str, dict[str, int]]) -> str:
    packages = sorted(sizes["packages"].items(), key=lambda each: -each[1])
    total = ("all packages", sum(sizes["packages"].values()))
    rows = [*packages, total, *sizes["models"].items()]
    return _table(("on the disk", "MB"), [(name, f"{size / MB:.1f}") for name, size in rows])
