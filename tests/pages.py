"""Report pages as a reader sees them, and as they were last read and found right."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

KEPT = Path(__file__).parent / "reports" / "pages"
VOID = {"meta", "link", "img", "wbr"}


class Page(HTMLParser):
    """Collects what a page shows and refers to, and checks that its tags are closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.references, self.tags = [], [], [], []
        self.rows, self.absent = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "href", "action", "srcset", "data")]
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
