"""A headless Chromium without a network, for tests and measurements."""

import base64
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
)
CUT = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
IS_DRAWN = """
const plots = Bokeh.documents.length ? Bokeh.documents[0] : null;
return document.documentElement.dataset.drawn === "yes" && plots !== null && plots.is_idle;
"""


def missing() -> str | None:
    """Return what is not installed, with the way out; None if all is there."""
    try:
        import selenium  # noqa: F401, PLC0415
    except ImportError:
        return "selenium is not installed: pip install selenium"
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return "Chromium is not installed: apt-get install chromium chromium-driver"
    return None


@contextmanager
def chromium(profile: Path) -> Iterator["Browser"]:
    """Start Chromium with an empty profile, and end it.

    Parameters
    ----------
    profile : an empty folder.
    """
    from selenium import webdriver  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, CUT, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """What tests and measurements do in a browser; ``driver`` is Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, patience_s: float = 120.0) -> None:
        """Open a page and wait until its charts are drawn."""
        self.driver.get_log("browser")
        self.driver.get(url)
        self.wait(IS_DRAWN, patience_s)

    def wait(self, script: str, patience_s: float = 60.0) -> None:
        """Wait until a script returns something true; a TimeoutError names the script."""
        until_s = time.monotonic() + patience_s
        while not self.js(script):
            if time.monotonic() > until_s:
                raise TimeoutError(f"not within {patience_s:g} s: {script}; {self.errors()}")
            time.sleep(0.1)

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        """Return what the console has called an error since the last question."""
        return [
            one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"
        ]

    def command(self, name: str, **arguments: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, path: Path) -> bytes:
        """Save the page as it is printed, a PDF, and return it."""
        how = {"printBackground": True, "preferCSSPageSize": True}
        pdf = base64.b64decode(self.command("Page.printToPDF", **how)["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pdf)
        return pdf
