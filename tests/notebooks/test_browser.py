"""A person's way, by a real browser: JupyterLab as `./dev notebooks` starts it, a notebook opened, "Run All Cells"
chosen from the menu, in our kernel; the plot is on the page.

The browser resolves no name but the machine's own: what needed the internet would fail. Screenshots: where it prints.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.needs("chromium", "chromedriver")]

# The smallest notebook that shows both: that it is our kernel, and a plot.
SMALL = [
    "import os, socket\n"
    "print('user', os.getuid(), 'on', socket.gethostname(), 'sees', os.listdir('/sys/class/net'))",
    "from minicontainer.teach import plot\n"
    "plot.bars('What a cell draws', 'ms', {'native': [1.0, 1.1, 1.2], 'container': [2.0, 2.1, 2.3]}, alt='two bars')",
]  # fmt: skip


def write_small(path: Path) -> None:
    import nbformat.v4 as v4

    cells = [v4.new_markdown_cell("# A small notebook"), *(v4.new_code_cell(source) for source in SMALL)]
    kernel = {"name": "minicontainer", "display_name": "minicontainer", "language": "python"}
    path.write_text(json.dumps(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """JupyterLab on a course folder, and a browser that looks at it."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.course = folder / "course"
        self.course.mkdir()
        write_small(self.course / "small.ipynb")
        self.pictures = Path(tempfile.mkdtemp(prefix="minicontainer-browser-"))
        self.port = free_port()
        self.log = (folder / "lab.log").open("w+")
        self.server = subprocess.Popen(
            [sys.executable, "-m", "minicontainer.teach.course", "start", "--no-browser", f"--port={self.port}",
             "--ServerApp.port_retries=0", "--IdentityProvider.token=learner"],
            env={**os.environ, "MINICONTAINER_COURSE": str(self.course)},
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.until(self.answers, 90, "JupyterLab answers")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (
            "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
            "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-proxy-server",
            "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "window-size=1280,1600",
            f"user-data-dir={tempfile.mkdtemp(prefix='profile-', dir=folder)}",
        ):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def answers(self) -> bool:
        if self.server.poll() is not None:
            raise AssertionError(f"JupyterLab ended: {self.said()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api?token=learner", timeout=2):
                return True
        except OSError:
            return False

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()[-3000:]

    def until(self, condition: Any, seconds: float, what: str) -> Any:
        """Whatever truth the condition comes to, in so many seconds. A page redraws under one's hands: then, again."""
        from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                found = condition()
            except (ElementClickInterceptedException, StaleElementReferenceException):
                found = None
            if found:
                return found
            time.sleep(0.2)
        if hasattr(self, "browser"):
            self.picture("stuck")
        raise AssertionError(f"not within {seconds} s: {what}. {self.said()}")

    def find(self, xpath: str) -> Any:
        return next((found for found in self.browser.find_elements("xpath", xpath) if found.is_displayed()), None)

    def click(self, xpath: str, seconds: float = 20) -> None:
        """What a person sees, and clicks."""

        def attempt() -> bool:
            seen = self.find(xpath)
            if seen:
                seen.click()
            return bool(seen)

        self.until(attempt, seconds, xpath)

    def menu(self, title: str, item: str) -> None:
        self.click(f"//div[contains(@class, 'lm-MenuBar-itemLabel')][text()='{title}']")
        self.click(f"//div[contains(@class, 'lm-Menu-itemLabel')][text()='{item}']")

    def picture(self, name: str) -> Path:
        path = self.pictures / f"{name}.png"
        self.browser.save_screenshot(str(path))
        print(f"screenshot: {path}")
        return path

    def run_all(self, name: str, seconds: float) -> dict[str, Any]:
        """Open a notebook, run all of it, save it; returns it as it then lies on the disk."""
        self.browser.get(f"http://127.0.0.1:{self.port}/lab/tree/{name}?token=learner&reset")
        self.click("//div[contains(@class, 'jp-NotebookPanel')]//div[contains(@class, 'jp-Cell')]", 60)
        self.until(lambda: self.find("//*[contains(@class, 'jp-Toolbar-kernelName')][.='minicontainer']"), 30, "kernel")
        self.until(lambda: self.find("//*[contains(@class, 'jp-Notebook-ExecutionIndicator')][@data-status='idle']"),
                   40, "the kernel is ready")  # fmt: skip
        self.menu("Run", "Run All Cells")
        path = self.course / name

        def finished() -> dict[str, Any] | None:
            self.menu("File", "Save Notebook")
            time.sleep(0.5)
            notebook: dict[str, Any] = json.loads(path.read_text())
            code = [
                cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()
            ]
            errors = [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
            return notebook if errors or all(cell["execution_count"] for cell in code) else None

        notebook: dict[str, Any] = self.until(finished, seconds, f"all cells of {name} have run")
        return notebook

    def shown_plot(self) -> Any:
        """A picture in a cell's output, loaded, and as large as a plot: scrolled to, as a person would."""
        script = """
        const pictures = [...document.querySelectorAll('.jp-OutputArea-output img')]
            .filter(one => one.complete && one.naturalWidth > 200 && one.naturalHeight > 100);
        if (!pictures.length) {
            const pane = document.querySelector('.jp-WindowedPanel-outer');
            if (pane) pane.scrollTop = (pane.scrollTop + 700) % pane.scrollHeight;
            return null;
        }
        pictures[0].scrollIntoView({block: 'center'});
        return pictures[0].alt;
        """
        self.until(lambda: self.browser.execute_script(script) is not None, 30, "a plot on the page")
        time.sleep(0.5)
        return self.browser.execute_script(script)

    def complaints(self) -> list[str]:
        """What the page itself found wrong, by the browser's console."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]

    def end(self) -> None:
        if hasattr(self, "browser"):
            self.browser.quit()
        self.server.send_signal(signal.SIGTERM)
        try:
            self.server.wait(40)
        finally:
            if self.server.poll() is None:
                os.killpg(self.server.pid, signal.SIGKILL)
                self.server.wait()
            self.log.close()
        for _ in range(150):
            if not self.left():
                return
            time.sleep(0.2)
        raise AssertionError(f"JupyterLab outlived who started it: {self.left()}")

    def left(self) -> list[str]:
        """The processes that still name our folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:  # ended while we looked
                continue
            if os.fsencode(self.course) in words:
                found.append(words.decode(errors="replace"))
        return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab.__new__(Lab)
    try:
        made.__init__(tmp_path)  # type: ignore[misc]  # a half-made one is ended, too
        yield made
    finally:
        made.end()


def texts(notebook: dict[str, Any]) -> str:
    """All that cells printed, and the errors."""
    said = ""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            said += "".join(output.get("text", ())) + "\n".join(output.get("traceback", ()))
    return said


def plots(notebook: dict[str, Any]) -> int:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def see_both(lab: Lab) -> None:
    notebook = lab.run_all("small.ipynb", 60)
    said = texts(notebook)
    assert "user 0 on notebook sees ['lo']" in said, said
    assert plots(notebook) == 1
    lab.shown_plot()
    assert not lab.find("//*[contains(@class, 'Toastify__toast')]"), f"JupyterLab asks something: {lab.picture('asks')}"
    lab.picture("small")

    # Notebook 06 has plots of its own; what it shows must be on the page, too.
    name = "06_overlay.ipynb"
    notebook = lab.run_all(name, 90)
    assert "Traceback" not in texts(notebook), texts(notebook)
    assert plots(notebook)
    lab.shown_plot()
    lab.picture("notebook-06")
    assert not lab.complaints()


@pytest.mark.root
def test_a_notebook_in_a_browser_as_root(lab: Lab) -> None:
    see_both(lab)


@pytest.mark.userns
@pytest.mark.needs("user-namespace")
def test_a_notebook_in_a_browser_as_an_ordinary_user(lab: Lab) -> None:
    see_both(lab)
