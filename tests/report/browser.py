"""Headless Chromium as installed on this machine, or a reason to skip."""

import os
import shutil
from contextlib import contextmanager

import pytest

PATH = os.environ.get("VOXLOSS_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
needs_browser = pytest.mark.skipif(PATH is None, reason="no Chromium on this machine (VOXLOSS_CHROMIUM names one)")

ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",  # WebGL 2 without a GPU
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page of a size, with everything that it asked for or complained of."""

    def __init__(self, browser, width=1600, height=1000, **options):
        self.page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
        self.requests, self.complaints, self.dialogs = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("dialog", self._dialog)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _dialog(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open_case(self, case_id):
        self.page.locator("button.open", has_text=case_id).first.click()
        self.page.wait_for_selector("#viewer[data-shown]", timeout=60_000)
        self.page.wait_for_timeout(500)

    def colours(self, side):
        """The colours of one canvas of the viewer as counts by kind, from what the screen shows."""
        import io

        import numpy as np
        from PIL import Image

        shot = Image.open(io.BytesIO(self.page.locator(".stage canvas").nth(side).screenshot())).convert("RGB")
        red, green, blue = np.asarray(shot).astype(int).transpose(2, 0, 1)
        return {
            "grey": int(((abs(red - green) < 12) & (abs(green - blue) < 12) & (red > 40)).sum()),
            "green": int(((green > red + 60) & (green > blue + 60)).sum()),
            "magenta": int(((red > green + 60) & (blue > green + 60)).sum()),
        }
