"""What a user's own images cost on this machine, by artifact.

Each setting answers in a process of its own, several times in turn, so that its peak memory is its
own and noise meets all alike.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from medimg_edge import engines
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.device_profile import Setting
from medimg_edge.errors import MedimgEdgeError, ModelLoad, TooFewImages
from medimg_edge.machine import peak_memory
from medimg_edge.record import Failure, failure
from medimg_edge.timing import timed

ROUNDS = 3
SECONDS = 6.0
"""For each setting, over all rounds."""

CALLS = 3
"""Of a round at least."""

MOST_IMAGES = 100
"""Of more, as many are taken, evenly spread."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """One setting: from file to Prediction, one image after the other.

    ``chosen``: it is what ``--artifact auto`` answers with here. ``answered`` and ``failed``: how
    many images were, the same ones again included. Milliseconds of one image that was answered.
    ``peak_memory`` in bytes, of the whole process, None where the system does not tell.
    """

    artifact: str
    runtime: str
    threads: int
    chosen: bool
    answered: int
    failed: int
    p50: float
    p95: float
    p99: float
    images_per_second: float
    peak_memory: int | None


@dataclass(frozen=True)
class Round:
    """What one process did: the seconds of each answer, and what could not be answered."""

    durations: list[float]
    failures: list[Failure]
    peak_memory: int | None


def bench(
    bundle: Bundle,
    images: Sequence[Path] = (),
    *,
    chosen: Setting | None = None,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> list[Measured]:
    """Measure every artifact by every installed runtime with one thread, and what was ``chosen``.

    images: files; without any the bundle's golden inputs, which are small.
    Raises TooFewImages where none of them can be answered, ModelLoad.
    """
    sources = list(images) or [bundle.path / each.input for each in bundle.manifest.golden]
    sources = sources[:: ceil(len(sources) / MOST_IMAGES)]
    settings = [*_settings(bundle)]
    if chosen is not None and chosen not in settings:
        settings.insert(0, chosen)
    rounds: dict[Setting, list[Round]] = {each: [] for each in settings}
    for turn in range(ROUNDS):
        for at, setting in enumerate(settings, start=1):
            if progress:
                progress("measuring", turn * len(settings) + at, ROUNDS * len(settings))
            rounds[setting].append(_in_a_process(bundle.path, setting, sources, seconds / ROUNDS))
    return [_measured(setting, setting == chosen, rounds[setting]) for setting in settings]


def _settings(bundle: Bundle) -> Iterator[Setting]:
    for name, artifact in bundle.manifest.artifacts.items():
        for runtime in engines.runtimes(artifact.format):
            yield Setting(name, runtime, 1)


def _measured(setting: Setting, chosen: bool, rounds: list[Round]) -> Measured:
    durations = [each for one in rounds for each in one.durations]
    failures = [each for one in rounds for each in one.failures]
    if not durations:
        raise TooFewImages(f"None of the images could be answered: {failures[0].message}")
    p50, p95, p99 = np.percentile(durations, [50, 95, 99]) * 1000
    peaks = [one.peak_memory for one in rounds if one.peak_memory is not None]
    return Measured(
        *setting,
        chosen=chosen,
        answered=len(durations),
        failed=len(failures),
        p50=round(float(p50), 3),
        p95=round(float(p95), 3),
        p99=round(float(p99), 3),
        images_per_second=round(len(durations) / sum(durations), 2),
        peak_memory=max(peaks, default=None),
    )


def _in_a_process(bundle: Path, setting: Setting, sources: list[Path], seconds: float) -> Round:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_answer, args=(theirs, bundle, setting, sources, seconds), daemon=True
    )
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        process.join()
        raise ModelLoad(
            f"{setting.artifact} by {setting.runtime}: the process that measured it ended with "
            f"{process.exitcode}. There was too little memory, or the runtime is not for this "
            "processor: see `medimg-edge doctor`."
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, MedimgEdgeError):
        raise found
    return found


def _answer(
    pipe: Connection, bundle: Path, setting: Setting, sources: list[Path], seconds: float
) -> None:
    """In the process of its own: send a Round, or the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    try:
        artifact, runtime, threads = setting
        classifier = Classifier(
            bundle,
            artifact=artifact,
            profile=None,
            runtime=runtime,
            threads=threads,
            screened=False,  # it checks, and answers golden inputs, which are drawn, too
        )
        turn = cycle(sources)
        found: list[Failure | None] = []

        def answer(path: Path) -> Failure | None:
            try:
                classifier.predict(path)
            except MedimgEdgeError as error:
                return failure(str(path), error)
            return None

        for each in {path.suffix: path for path in sources}.values():
            answer(each)  # what is imported for a format comes but once
        durations = timed(lambda: found.append(answer(next(turn))), seconds=seconds, least=CALLS)
        pairs = list(zip(durations, found[1:], strict=True))
        answered = [duration for duration, failed in pairs if failed is None]
        failures = [failed for _, failed in pairs if failed is not None]
        pipe.send(Round(answered, failures, peak_memory()))
    except MedimgEdgeError as error:
        pipe.send(error)
