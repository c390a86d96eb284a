"""The documentation as a site: built without a warning, whole, made of what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT, commands
from pages import page_in_browser

import m1pipe

CONFIG = ROOT / "docs/site/mkdocs.yml"


def test_every_document_and_notebook_has_its_place() -> None:
    """A page that is not in the navigation would be found by nobody."""
    text = CONFIG.read_text(encoding="utf-8")
    navigation = set(
        re.findall(r"(\S+\.(?:md|ipynb))$", text[text.index("\nnav:") :], re.MULTILINE)
    )
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    pages |= {str(path.relative_to(ROOT)) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert navigation == pages | {"index.md", "reference/commands.md", "reference/python.md"}
    assert "\nstrict: true\n" in text and text.count(": warn\n") == 4


def test_links_of_readme_lead_to_files() -> None:
    """On the site mkdocs looks at them; README is read elsewhere too."""
    found = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(found) > 5
    assert not [link for link in found if not (ROOT / link).is_file()]


def test_links_to_benchmarks_lead_to_files() -> None:
    """They are links in the repository and plain paths on the site."""
    found = [
        path.parent / link
        for path in (ROOT / "docs").rglob("*.md")
        for link in re.findall(
            r"\]\(((?:\.\./)+benchmarks/[^)]+)\)", path.read_text(encoding="utf-8")
        )
    ]
    assert found and all(path.is_file() for path in found)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    build = [sys.executable, "-m", "mkdocs", "--quiet", "build", "-f", str(CONFIG)]
    done = subprocess.run([*build, "-d", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (ROOT / ".cache").exists()
    page = (tmp_path / "reference/commands.html").read_text(encoding="utf-8")
    for name, _ in commands():
        assert f"Usage: m1pipe {name} " in page
    page = (tmp_path / "reference/python.html").read_text(encoding="utf-8")
    assert all(name.startswith("_") or f".{name}" in page for name in m1pipe.__all__)
    for path in (ROOT / "m1pipe").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        text = path.read_text(encoding="utf-8")
        if not name.startswith("m1pipe.cli.") and re.search(r"(?m)^(def|class) [a-zA-Z]", text):
            assert f'id="{name}"' in page, f"{name}: not in the reference"
    assert "overview.svg" in (tmp_path / "index.html").read_text(encoding="utf-8")
    where = f"{(tmp_path / 'howto/compare.html').as_uri()}?q=conformal"
    shown, _ = page_in_browser(where, tmp_path / "profile", "--virtual-time-budget=30000")
    count = re.search(r'md-search-result__meta">(\d+) matching documents', shown)
    assert count is not None and int(count[1]) > 1, "not searched as files"
