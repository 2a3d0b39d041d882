"""The deck as an audience sees it: built anew, opened offline in a real browser, nothing missing, nothing cut off."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.teach import deck
from tests.conftest import CHECKOUT, need

SOURCE = CHECKOUT / "slides"
TALK = SOURCE / "talk.md"

# ------------------------------------------------------------------------------------------------- the source, unbuilt


def test_each_path_takes_as_long_as_it_says() -> None:
    slides = deck.read(TALK.read_text())
    for path in deck.PATHS:
        assert sum(slide.minutes.get(path, 0) for slide in slides) == float(path), path


def test_what_is_said_of_the_minutes_is_so() -> None:
    in_words = {"Ten": 10, "Twelve": 12}
    stations = []
    for slide in deck.read(TALK.read_text()):
        said = re.search(r"^(\w+) minutes", slide.body, re.MULTILINE)
        if said:
            assert slide.minutes == {"180": in_words[said[1]]}, slide.body
            if "```notebook" in slide.body:
                stations.append(slide.minutes["180"])
    assert len(stations) == 4
    assert (
        f"four stations at which the audience opens a notebook, {sum(stations):g} minutes of them"
        in (SOURCE / "README.md").read_text()
    )


def test_the_long_path_leaves_nothing_out_and_every_slide_has_notes() -> None:
    for slide in deck.read(TALK.read_text()):
        assert "180" in slide.minutes, slide.title
        assert slide.notes, slide.title or slide.part


def test_a_slide_ends_where_the_next_heading_is_but_not_within_a_fence() -> None:
    slides = deck.read("# A\n\n## B {45: 1}\n```sh\n## not a slide\n```\nNote:\nsay\n\n## C\n")
    assert [(slide.part, slide.title, slide.minutes) for slide in slides] == [
        ("A", "", {}), ("A", "B", {"45": 1.0}), ("A", "C", {}),
    ]  # fmt: skip
    assert "## not a slide" in slides[1].body
    assert slides[1].notes == "say"


def test_rules_say_what_is_left_out() -> None:
    output = "one\ntwo\nthree\nfour"
    assert deck.trimmed(output, {"head": "2"}) == ["one", "two", "[…]"]
    assert deck.trimmed(output, {"tail": "1"}) == ["[…]", "four"]
    assert deck.trimmed(output, {"grep": "^t"}) == ["[…]", "two", "three", "[…]"]
    assert deck.trimmed("12345678", {"width": "4"}) == ["123…"]


def test_a_section_of_explain_is_its_paragraphs() -> None:
    output = "parent ─ overlay ───\n  mount\n\nchild ─ overlay ──\n  mkdir\n\nstart: 2 ms\n\nteardown ─ overlay ─"
    assert deck.trimmed(output, {"section": "overlay", "holding": "mount"}) == [
        "parent ─ overlay ───",
        "  mount",
        "[…]",
    ]
    assert deck.trimmed(output, {"section": "overlay"})[-3:] == ["child ─ overlay ──", "  mkdir", "[…]"]
    assert deck.trimmed(output, {"section": "start"}) == ["[…]", "start: 2 ms", "[…]"]


def said(command: str, output: str, code: int) -> deck.Said:
    return deck.Said(command, output, code, True)


def test_what_the_kit_does_not_know_yet_is_marked_by_its_own_answer() -> None:
    answer = "minicontainer: 'pull' is not a command; `minicontainer --help` lists them"
    text, mark = deck.transcript([said("minicontainer pull x", answer, 2)], deck.block("run soon", ""))
    assert mark == "soon"
    assert "not yet" in text
    assert "is not a command" in text
    text, mark = deck.transcript([said("minicontainer pull x", "pulled", 0)], deck.block("run soon", ""))
    assert (mark, "not yet" in text) == ("", False)


def test_whatever_else_fails_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck, "host_root", True)
    answer = "minicontainer: 'pull' is not a command; `minicontainer --help` lists them"
    for rules, output in (("run", answer), ("run soon", "minicontainer: no such image")):
        with pytest.raises(deck.Failed):
            deck.transcript([said("minicontainer pull x", output, 1)], deck.block(rules, ""))
    with pytest.raises(deck.Failed):  # the words beside it would be wrong
        deck.transcript([said("true", "something else", 0)], deck.block('run expect="can.t fork"', ""))
    assert deck.transcript([said("false", "", 1)], deck.block("run exits=1", ""))[1] == ""


@pytest.mark.root
@pytest.mark.needs("unshare")
def test_an_ordinary_user_on_roots_stage() -> None:
    script = (
        "from minicontainer.teach import deck; from pathlib import Path; stage = deck.Stage(Path('slides/demo'));"
        "print([one.output for one in stage.run('$ id -u\\n$ cd; pwd\\n$ minicontainer --version', ordinary=True)]);"
        "print(stage.run('$ id -u')[0].output, stage.folder); stage.clear(); print(stage.folder.exists())"
    )
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    nobody, root, gone = done.stdout.splitlines()
    assert re.fullmatch(r"\['65534', '~', 'minicontainer [^']+'\]", nobody)
    assert root.startswith("0 ")
    assert gone == "False"
    assert (CHECKOUT / "slides/talk.md").exists()


def test_an_ordinary_user_sees_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck, "host_root", False)
    text, mark = deck.transcript([said("minicontainer run --cpus 1 x", "no cgroup", 125)], deck.block("run", ""))
    assert mark == "refused"
    assert "not on this machine" in text


# -------------------------------------------------------------------------------------------------------- in a browser

REVEAL = next(iter(sorted((CHECKOUT / ".venv").glob("reveal.js-*"))), None)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slides, built as `./dev slides` builds them, into a folder of the test's."""
    need("chromium", "chromedriver", "unshare", "ip", "jq")
    out = tmp_path_factory.mktemp("deck") / "slides"
    began = time.monotonic()
    done = subprocess.run(
        [str(CHECKOUT / "dev"), "slides", "--out", str(out)],
        capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout, f"{time.monotonic() - began:.0f} s")
    return out


@pytest.fixture(scope="session")
def browser(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, 1280×720, cut off from every network by a proxy that does not exist."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        "--disable-dev-shm-usage", "--window-size=1280,720", "--proxy-server=127.0.0.1:9",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    # A headless window has a title bar, too: what counts is what the page gets.
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    )
    yield driver
    driver.quit()


def opened(browser: Any, built: Path, query: str = "") -> int:
    """Open the deck; the number of its slides."""
    browser.get(f"file://{built}/index.html{query}")
    for _ in range(100):
        if browser.execute_script("return window.Reveal && Reveal.isReady() && document.fonts.status == 'loaded'"):
            break
        time.sleep(0.1)
    return int(browser.execute_script("return Reveal.getTotalSlides()"))


# What sticks out of its slide, or of its frame; and text that is too small to be read from the last row.
OVERFLOW = """
const slide = Reveal.getCurrentSlide(), edge = slide.getBoundingClientRect(), found = [];
for (const element of slide.querySelectorAll("*")) {
  if (element.closest(".notes")) continue;
  const box = element.getBoundingClientRect();
  if (!box.width || !box.height) continue;
  const name = element.tagName + "." + element.className;
  if (box.right > edge.right - 20 || box.bottom > edge.bottom - 12 || box.left < edge.left || box.top < edge.top)
    found.push(`${name} reaches ${box.right | 0}, ${box.bottom | 0}: ` + element.textContent.slice(0, 40));
  if (element.tagName == "PRE" && element.scrollWidth > element.clientWidth + 1)
    found.push(`${name}: lines ${element.scrollWidth} wide in ${element.clientWidth}`);
  if (parseFloat(getComputedStyle(element).fontSize) < 15) found.push(`${name}: too small`);
}
for (const image of slide.querySelectorAll("img"))
  if (!image.naturalWidth || image.alt.length < 40) found.push(`${image.src}: no picture, or no words for it`);
return found;
"""


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(400)
def test_the_deck_opens_offline_without_an_error_and_no_slide_overflows(browser: Any, built: Path) -> None:
    count = opened(browser, built)
    assert count == json.loads((built / "built.json").read_text())["slides"]
    fonts = browser.execute_script("return [...document.fonts].filter(font => font.status == 'loaded').length")
    assert fonts >= 3
    pictures = os.environ.get("DECK_SCREENSHOTS")
    wrong = []
    for number in range(count):
        browser.execute_script(f"Reveal.slide({number}, 0, 9)")
        time.sleep(0.05)
        title = browser.execute_script("return Reveal.getCurrentSlide().querySelector('h1, h2').textContent")
        wrong += [f"slide {number + 1}, {title}: {what}" for what in browser.execute_script(OVERFLOW)]
        if pictures:
            browser.save_screenshot(f"{pictures}/{number + 1:02d}.png")
    assert wrong == [], "\n".join(wrong)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(400)
def test_each_path_shows_its_slides_alone(browser: Any, built: Path) -> None:
    slides = deck.read(TALK.read_text())
    for path in deck.PATHS:
        shown = opened(browser, built, f"?path={path}")
        assert shown == sum(path in slide.minutes for slide in slides)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(400)
def test_the_speaker_sees_notes(browser: Any, built: Path) -> None:
    opened(browser, built, "?showNotes=true")
    assert browser.execute_script("return document.querySelector('.speaker-notes').textContent").strip()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(400)
def test_the_folder_stands_alone_and_nothing_was_refused(built: Path) -> None:
    page = (built / "index.html").read_text()
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        if not address.startswith(("?", "#", "data:")):
            assert (built / address).exists(), address
    assert json.loads((built / "built.json").read_text())["refused"] == 0
    assert str(CHECKOUT) not in page


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(400)
def test_the_pdf_has_a_page_for_each_slide(built: Path) -> None:
    pages = len(re.findall(rb"/Type\s*/Page\b", (built / "slides.pdf").read_bytes()))
    assert pages == json.loads((built / "built.json").read_text())["slides"]


@pytest.mark.slow
@pytest.mark.userns
@pytest.mark.needs("user-namespace", "unshare", "ip", "jq")
@pytest.mark.timeout(300)
def test_an_ordinary_user_builds_the_deck_too(tmp_path: Path) -> None:
    if REVEAL is None:
        pytest.skip("missing: reveal.js (./dev slides fetches it)")
    out = tmp_path / "slides"
    done = subprocess.run(
        [sys.executable, "-m", "minicontainer.teach.deck", str(SOURCE), str(out), "--reveal", str(REVEAL)],
        capture_output=True, text=True, timeout=250, cwd=CHECKOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (out / "index.html").exists()
