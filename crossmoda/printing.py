"""HTML pages as PDF, by a browser of the Chromium family without a window."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from crossmoda.errors import InputError

#: Names of the browsers in PATH.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
#: Where macOS and Windows keep them.
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
_REMEDY = "Write the page without a PDF, open it in a browser and print it."
#: A page that takes longer will not come, seconds.
_PATIENCE_S = 300


def browser() -> Path:
    """Return the browser that prints.

    Raises:
        InputError: there is none.

    """
    for program in (*map(shutil.which, _NAMES), *(place for place in _PLACES if Path(place).is_file())):
        if program:
            return Path(program)
    raise InputError(f"No Chromium, Chrome or Edge found to write a PDF. {_REMEDY}")


def pdf_of(html: str) -> bytes:
    """Return a self-contained HTML page as PDF.

    Raises:
        InputError: there is no browser, or it fails.

    """
    command = [str(browser()), "--headless", "--disable-gpu", "--no-pdf-header-footer", "--no-first-run"]
    if sys.platform == "linux" and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to sandbox the administrator's pages
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page, pdf = folder / "page.html", folder / "page.pdf"
        page.write_text(html, encoding="utf-8")
        command += [f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={pdf}", page.as_uri()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S)
            return pdf.read_bytes()
        except (OSError, subprocess.SubprocessError) as cause:
            raise InputError(f"The browser wrote no PDF: {command[0]}. {_REMEDY}") from cause
