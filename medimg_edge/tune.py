"""Find the setting that answers soonest on this machine, among those that answer the same.

Every artifact by every installed runtime with every number of threads first answers the golden set.
Those that may answer are then timed in rounds, so that noise meets all alike. One engine is loaded
at a time, so that a small machine can hold it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from medimg_edge import __version__, engines, golden
from medimg_edge.bundle import Bundle
from medimg_edge.cores import images_at_once, usable_cores
from medimg_edge.device_profile import DeviceProfile, Pace, Setting
from medimg_edge.errors import GoldenMismatch, MedimgEdgeError
from medimg_edge.golden import Check
from medimg_edge.machine import this_machine
from medimg_edge.timing import rate, timed

ROUNDS = 5
SECONDS = 0.1
CALLS = 3
"""A round times each setting for this long and this many calls at least."""

WORTH = 0.05
"""A setting further down the list must be this much faster: less is noise, or soon will be."""

Progress = Callable[[str, int, int], None]


@dataclass
class Trial:
    """One setting: its golden check, the seconds of each image alone, images a second by round."""

    setting: Setting
    check: Check
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def pace(self) -> Pace | None:
        """None where it was not timed, because its answers differ."""
        if not self.seconds:
            return None
        return Pace(self.setting.threads, median(self.seconds) * 1000, median(self.rates))


@dataclass(frozen=True)
class Tuned:
    """Every setting in order of preference, the seconds that engines took to load, the choice."""

    trials: list[Trial]
    loads: dict[Setting, float]
    profile: DeviceProfile


def tune(bundle: Bundle, rounds: int = ROUNDS, progress: Progress | None = None) -> Tuned:
    """Measure every setting on this machine and choose.

    Raises FilesDiffer, or GoldenMismatch where pixels differ or no setting gives the golden
    answers.
    """
    pixels = golden.read_pixels(bundle)
    settings = list(_settings(bundle))
    trials: list[Trial] = []
    for at, setting in enumerate(settings, start=1):
        _report(progress, "checking", at, len(settings))
        trials.append(_checked(bundle, setting, pixels))
    allowed = _allowed(trials, settings[0])
    if not allowed:
        raise GoldenMismatch(
            "No setting gives the golden answers on this machine: "
            f"{trials[0].setting.artifact}: {trials[0].check.message}. Nothing was kept; do not "
            "use the bundle here."
        )
    loads = _time(bundle, allowed, pixels, rounds, progress)
    return Tuned(trials, loads, _profile(bundle, allowed))


def _settings(bundle: Bundle) -> Iterator[Setting]:
    """In order of preference: the default artifact, the reference runtime, the fewest threads."""
    manifest = bundle.manifest
    default = manifest.default_artifact
    for name in sorted(manifest.artifacts, key=lambda each: each != default):
        for runtime in engines.runtimes(manifest.artifacts[name].format):
            for threads in _threads(usable_cores()):
                yield Setting(name, runtime, threads)


def _threads(most: int) -> list[int]:
    """1 to 4, then powers of two, and all cores."""
    counts = {1, 2, 3, 4, most, *(2**power for power in range(3, most.bit_length()))}
    return sorted(count for count in counts if count <= most)


def _load(bundle: Bundle, setting: Setting) -> engines.Engine:
    return engines.load(
        bundle.read(setting.artifact),
        bundle.manifest.artifacts[setting.artifact].format,
        bundle.manifest,
        threads=setting.threads,
        runtime=setting.runtime,
    )


def _checked(bundle: Bundle, setting: Setting, pixels: NDArray[np.uint8]) -> Trial:
    try:
        engine = _load(bundle, setting)
    except MedimgEdgeError as error:
        return Trial(setting, Check(setting.artifact, "failed", message=error.message))
    return Trial(setting, golden.compare(bundle, setting.artifact, pixels, engine.run))


def _allowed(trials: list[Trial], default: Setting) -> list[Trial]:
    """Those whose answers are the golden ones.

    Where the default setting itself has a warning, because this processor rounds int8 otherwise,
    others may have one too: it answers so without ``tune``.
    """
    untuned = next((each.check.status for each in trials if each.setting == default), "failed")
    statuses = {"ok", "warning"} if untuned == "warning" else {"ok"}
    return [each for each in trials if each.check.status in statuses]


def _time(
    bundle: Bundle,
    trials: list[Trial],
    pixels: NDArray[np.uint8],
    rounds: int,
    progress: Progress | None,
) -> dict[Setting, float]:
    """Fill the trials' seconds; return the median seconds that each engine took to load."""
    loads: dict[Setting, list[float]] = {each.setting: [] for each in trials}
    order = list(trials)
    for turn in range(rounds):
        for at, trial in enumerate(order, start=1):
            _report(progress, "measuring", turn * len(order) + at, rounds * len(order))
            loads[trial.setting].append(_time_once(bundle, trial, pixels))
        order.reverse()  # what drifts, such as heat, meets the last first
    return {setting: median(each) for setting, each in loads.items()}


def _time_once(bundle: Bundle, trial: Trial, pixels: NDArray[np.uint8]) -> float:
    """Load an engine and time it; the seconds that it took to load."""
    started = time.perf_counter()
    engine = _load(bundle, trial.setting)
    loaded = time.perf_counter() - started
    run = partial(engine.run, pixels[:1])
    at_once = images_at_once(trial.setting.threads)
    trial.seconds += timed(run, seconds=SECONDS, least=CALLS)
    trial.rates.append(rate(run, at_once=at_once, seconds=SECONDS, least=CALLS))
    return loaded


def _profile(bundle: Bundle, trials: list[Trial]) -> DeviceProfile:
    paces = {each.setting: each.pace for each in trials if each.pace}
    soonest = _fastest({setting: 1000 / pace.milliseconds for setting, pace in paces.items()})
    artifact, runtime, _ = soonest
    same = {each: pace for each, pace in paces.items() if each[:2] == (artifact, runtime)}
    most = _fastest({setting: pace.images_per_second for setting, pace in same.items()})
    version = engines.version(runtime)
    assert version is not None
    return DeviceProfile(
        bundle=bundle.hash,
        machine=this_machine(),
        artifact=artifact,
        runtime=runtime,
        runtime_version=version,
        release=__version__,
        single=paces[soonest],
        many=paces[most],
        created=time.strftime("%Y-%m-%d"),
    )


def _fastest(rates: dict[Setting, float]) -> Setting:
    """The first that is about as fast as the fastest, in images per second."""
    most = max(rates.values())
    return next(setting for setting, rate in rates.items() if rate * (1 + WORTH) >= most)


def _report(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)
