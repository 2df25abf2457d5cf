"""Pictures of a report for the README and the gallery: `python tests/browser/screenshots.py results/demo/report.html
docs/gallery`, after `make demo`. Not a test."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from webdriver import Browser

from plotting.gallery import in_few_colours


def main() -> None:
    page, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as place, Browser(Path(place), size=(1440, 1240)) as browser:
        browser.open(page.as_uri())
        (folder / "report.png").write_bytes(in_few_colours(browser.screenshot()))
    with tempfile.TemporaryDirectory() as place, Browser(Path(place), is_dark=True, size=(1440, 940)) as browser:
        browser.open(page.as_uri())
        browser.click('#question-table [data-sort="tokens"]')
        browser.click("#question-table tbody tr:nth-child(1) button")
        browser.until("return document.querySelectorAll('.panel .round').length > 0")
        browser.press(*["Right"] * 3)
        (folder / "report_trajectory.png").write_bytes(in_few_colours(browser.screenshot()))


if __name__ == "__main__":
    main()
