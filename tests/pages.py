"""Report pages as a reader sees them, and as they were last read and found right."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

KEPT = Path(__file__).parent / "reports" / "pages"
VOID = {"meta", "link", "img", "wbr"}


class Page(HTMLParser):
    """Collects what a page shows and refers to, and checks that its tags are closed in order.

    `seen` and `folded` are its words, those that show at once and those that are to be opened.
    """

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.references, self.tags = [], [], [], []
        self.rows, self.absent, self.ids = [], [], []
        self.seen, self.folded = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "href", "action", "srcset", "data")]
        if tag == "section" or (tag == "details" and "id" in attributes):
            self.ids.append(attributes["id"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if attributes.get("class") == "absent":
            self.absent.append(tuple(self.rows[-1][:1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.texts.append(data)
        within = set(self.open)
        if not within & {"title", "style", "pre"}:
            is_folded = "details" in within and self.open[-1] != "summary"
            (self.folded if is_folded else self.seen).extend(
                word for word in data.split() if any(map(str.isalnum, word))
            )
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def row(self, *start):
        return next(row for row in self.rows if tuple(row[: len(start)]) == start)


def assert_as_kept(html, name):
    """The text of a page is that of a file in `KEPT`; with M1PIPE_KEEP_PAGES=1 it is written."""
    page = Page(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    lines = [" ".join(text.split()) for text in page.texts if text.strip()]
    path = KEPT / f"{name}.txt"
    if os.environ.get("M1PIPE_KEEP_PAGES") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines == path.read_text(encoding="utf-8").splitlines()


def page_in_browser(address, profile, *options):
    """What a browser makes of a page, as HTML, and what it complains of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed: the page is not seen as a browser shows it")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *options,
        "--dump-dom",
        address,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, done.stderr


def assert_browser_shows(html, folder, width, question):
    """A browser of this width shows a page whole and without a complaint.

    Returns its answer to one more question in JavaScript, a value without blanks.
    """
    probe = html.replace(
        "</body>",
        "<script>document.title = [document.documentElement.scrollWidth, innerWidth, "
        "[...document.images].every(i => i.complete && i.naturalWidth > 100), "
        f"{question}].join(' ')</script></body>",
    )
    path = folder / "probe.html"
    path.write_text(probe, encoding="utf-8")
    size = f"--window-size={width},3000"
    shown, complaints = page_in_browser(path.as_uri(), folder / "profile", size)
    title = re.search(r"<title>([^<]*)</title>", shown)
    assert title is not None
    page_width, window_width, images, answer = title.group(1).split()
    assert int(page_width) <= int(window_width)
    assert images == "true"
    assert "CONSOLE" not in complaints
    return answer
