"""The documentation as a site: built as `make docs` builds it, complete, searched from the disk, without a network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from support.browser import Page, needs_chromium, open_page
from support.paths import ROOT

import z1g

DOCS = ROOT / "docs"
COUNTED = ("table", "tr", "td", "li", "pre", "img", "h1", "h2", "h3", "h4", "blockquote", "strong", "em")
HEADINGS = {"h1", "h2", "h3", "h4"}
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "link": "href",
    "object": "data",
}
ELSEWHERE = re.compile(r"^(?:https?:)?//")


def build(settings: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a site with the command of `make docs`."""
    words = re.search(r"-m (mkdocs build.*)", (ROOT / "Makefile").read_text())
    assert words is not None
    command = [sys.executable, "-m", *words[1].split(), "--config-file", str(settings), "--site-dir", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Elements(HTMLParser):
    """What a page is made of: counts of elements in its article, words of its headings, addresses that it fetches."""

    def __init__(self, text: str, *, article: bool) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self._heading = False
        self._inside = not article
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._inside |= tag == "article"
        if self._inside and tag in COUNTED:
            self.counts[tag] += 1
            if tag in HEADINGS:
                self._heading = True
                self.headings.append("")
        if tag in FETCHED and values.get("rel") not in {"canonical", "prev", "next"}:
            self.fetched += [value for name, value in values.items() if name == FETCHED[tag] and value]

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "article"
        self._heading &= tag not in HEADINGS

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings[-1] += data.removesuffix("¶")


def outside() -> dict[Path, str]:
    """Files outside `docs/` that have a page, and the page."""
    spec = importlib.util.spec_from_file_location("pages_of_the_site", ROOT / "workflow/pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {ROOT / source: page for source, page in module.OUTSIDE.items()}


def pages() -> dict[Path, str]:
    """Files of pages that people write, and the pages."""
    inside = {page: page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if "api" not in page.parts}
    return inside | outside()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[here](nowhere.md)", "contains a link 'nowhere.md'"),
        ("[here](other.md#nowhere)", "does not contain an anchor '#nowhere'"),
        ("nothing", 'are not included in the "nav"'),
    ],
)
def test_a_mistake_fails_the_build(tmp_path: Path, text: str, problem: str) -> None:
    """With the settings of the site, without what takes time."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# A page\n\n{text}\n")
    (tmp_path / "docs/other.md").write_text("# Another\n")
    nav = ["index.md"] if "nav" in problem else ["index.md", "other.md"]
    own = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "docs", "nav": nav, "hooks": [], "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(own | {"theme": {"name": "mkdocs"}, "extra_css": []}))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert problem in done.stderr


@pytest.mark.slow
def test_every_page_is_in_the_navigation_once(site: Path) -> None:
    """mkdocs warns about pages that are in none; here also those that are in two places."""
    named = re.findall(r"(?m)(?:- |: )([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text())
    assert [name for name, n in Counter(named).items() if n > 1] == []
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= set(named)
    assert all((site / name).with_suffix(".html").is_file() for name in named)


@pytest.mark.slow
def test_pages_look_as_in_the_repository(site: Path) -> None:
    """Tables, lists and blocks of code are those that CommonMark with tables sees, as GitHub shows them."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    wrong = {}
    for page, name in pages().items():
        expected = Elements(reader.render(page.read_text(encoding="utf-8")), article=False)
        found = Elements((site / name).with_suffix(".html").read_text(encoding="utf-8"), article=True)
        pairs = {tag: (expected.counts[tag], found.counts[tag]) for tag in COUNTED}
        if differing := {tag: pair for tag, pair in pairs.items() if pair[0] != pair[1]}:
            wrong[name] = differing
        assert found.headings == expected.headings, name
    assert wrong == {}, "(as in the repository, on the site)"


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        fetched = Elements(page.read_text(encoding="utf-8"), article=False).fetched
        assert [address for address in fetched if ELSEWHERE.match(address)] == [], page.name
    for style in site.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", style.read_text(encoding="utf-8"))
        assert [address for address in addresses if ELSEWHERE.match(address)] == [], style.name


@pytest.mark.slow
def test_public_names_are_on_the_pages_of_the_package(site: Path) -> None:
    """With their text: the first line of each docstring."""
    text = re.sub(r"<[^>]+>", "", (site / "api/index.html").read_text() + (site / "api/splats.html").read_text())
    flat = " ".join(text.split())
    for name in set(z1g.__all__) - {"__version__"}:
        subject = getattr(z1g, name)
        assert name in flat
        if isinstance(subject, type):
            first = (subject.__doc__ or "").splitlines()[0].replace("`", "").split("[")[0]
            assert first in flat, name
    assert "Pictures of splats, on their device, from cameras that look at the origin." in flat


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a folder on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def search(page: Page, words: str) -> list[str]:
    """Type words into the search, and return the titles that it finds."""
    page.evaluate("document.querySelector('.md-search__input').focus()")
    page.call("Input.insertText", text=words)
    page.until("document.querySelectorAll('.md-search-result__item h1').length > 0")
    return page.evaluate("[...document.querySelectorAll('.md-search-result__item h1')].map((x) => x.textContent)")


@needs_chromium
@pytest.mark.browser
@pytest.mark.parametrize("by", ["file", "http"])
def test_it_is_read_and_searched_without_a_network(site: Path, tmp_path: Path, by: str) -> None:
    """From the disk and from a server on loopback: every request of the browser is recorded."""
    with served(site) as address:
        root = site.as_uri() if by == "file" else address
        with open_page(f"{root}/index.html", tmp_path, (1300, 900)) as page:
            page.call("Network.enable")
            for name in ("index", "notebooks/first_steps", "api/index", "benchmarks"):
                page.call("Page.navigate", url=f"{root}/{name}.html")
                page.until(f"document.readyState === 'complete' && location.pathname.endsWith('{name}.html')")
                broken = "[...document.images].filter((x) => x.complete && !x.naturalWidth).map((x) => x.src)"
                assert page.evaluate(broken) == []
            assert "Rasterizers" in search(page, "DiffGaussian")[0]
            # A click would end the page while its state is asked for.
            page.call("Page.navigate", url=page.evaluate("document.querySelector('.md-search-result__link').href"))
            page.until("document.readyState === 'complete' && location.pathname.endsWith('/api/rasterizers.html')")
            assert "DiffGaussian" in page.evaluate("document.querySelector('article').textContent")
            assert page.errors == []
            assert len(page.requests) > 20
            own = (f"{root}/", "data:", "blob:", "about:")
            assert [request for request in page.requests if not request.startswith(own)] == []
