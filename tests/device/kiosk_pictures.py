"""The pictures of the page in docs/, of synthetic radiographs alone.

python -m tests.device.kiosk_pictures docs/
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from tests.device.browsing import LARGEST, SMALLEST, Page
from tests.device.serving import Served

BUNDLE = Path(__file__).parents[1] / "data" / "frozen-bundle"
QUALITY = 88
"""Of JPEG: words stay sharp, and a picture below 150 kB."""


def main(out: Path) -> None:
    """An answer on a small screen, and the start on a large one."""
    with TemporaryDirectory() as folder:
        names = phantoms(Path(folder, "phantoms"))
        inbox = Path(folder, "inbox")
        inbox.mkdir()
        for number, path in enumerate(names[4:8], start=1):
            shutil.copy(path, inbox / f"room 2, {number}.png")
        broken = Path(folder, "copied in a hurry.png")
        broken.write_bytes(names[0].read_bytes()[:9000])
        served = Served(Path(folder, "kiosk"), BUNDLE, "--watch", inbox)
        with served, Page(Path(folder, "profile")) as page:
            page.open(served.url)
            for path in (names[1], broken, names[2], names[3]):
                page.choose(path)
            page.choose(names[0])
            take(page, out / "kiosk-1024x600.jpg", SMALLEST)
            page.click("#confirm")
            page.click("#confirm-send")
            page.wait("!document.getElementById('confirmed').hidden")
            page.home()
            page.wait("document.querySelector('.row-seen')")
            page.run("document.activeElement.blur()")
            take(page, out / "kiosk-1920x1080.jpg", LARGEST)


def phantoms(folder: Path) -> list[Path]:
    """Ill and healthy ones in turn, the first with an opacity that is plain to see."""
    words = ("data", "phantom", str(folder), "--count", "40")
    subprocess.run([sys.executable, "-m", "medimg_edge.cli", *words], check=True)
    by_label = (sorted(folder.glob(f"t*/{label}/*.png")) for label in ("opacity", "normal"))
    return [path for pair in zip(*by_label, strict=False) for path in pair]


def take(page: Page, path: Path, size: tuple[int, int]) -> None:
    """The page on a screen of that size, as JPEG."""
    page.resize(size)
    page.run("return document.fonts.ready.then(() => null)")
    shown = np.frombuffer(page.driver.get_screenshot_as_png(), np.uint8)
    picture = cv2.imdecode(shown, cv2.IMREAD_COLOR)
    assert picture is not None
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    print(f"{path} {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
