"""Hooks of mkdocs: pages of files outside `docs/`, a page of each notebook, and links that work in both places.

Links in the documentation are those of the repository, so that its files can be read where they are; on the site they lead
to the pages of these files.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{f"z1g/representations/{name}/README.md": f"representations/{name}.md" for name in ("mosaic", "attributes", "joint")},
}
"""Pages of files outside `docs/`: their paths in the repository and on the site."""
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of files outside `docs/`, and those of notebooks."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(file.content_string)
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=page_of(notebook, posixpath.basename(file.src_uri))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    sources = {page: source for source, page in OUTSIDE.items()}
    here = page.file.src_uri
    folder = posixpath.dirname(sources.get(here, f"docs/{here}"))

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        found = OUTSIDE.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(found) is None:
            return link[0]  # mkdocs says that it leads nowhere
        return f"]({posixpath.relpath(found, posixpath.dirname(here))}{link[2] or ''})"

    return LINK.sub(moved, as_commonmark(markdown))


def as_commonmark(markdown: str) -> str:
    """Text that the library of mkdocs reads as CommonMark is read.

    The library wants blocks of numbered items indented by four spaces instead of three, and empty lines around them and
    before tables.
    """
    lines: list[str] = []
    code = item = False
    for line in markdown.split("\n"):
        before = lines[-1] if lines else ""
        if not code and re.match(r"\d+\. ", line):
            item = True
            if before.startswith("    "):
                lines.append("")
        elif line and not line.startswith("   "):
            item = False
        if not code and line.startswith("|") and before and not before.startswith("|"):
            lines.append("")
        code ^= line.startswith("```")
        lines.append(f" {line}" if item and line.startswith("   ") else line)
    return "\n".join(lines)


def page_of(notebook: dict, name: str) -> str:
    """The Markdown of a notebook: its text, its code, and texts and images that it puts out."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{text}\n```")
            parts += [shown for output in cell["outputs"] if (shown := _shown(output))]
    parts.insert(1, f"This page is a notebook: [{name}]({name}).")
    return "\n\n".join(parts) + "\n"


def _shown(output: dict) -> str:
    """An output of a cell: an image, or else its text."""
    data = output.get("data", {})
    for kind in ("image/png", "image/webp", "image/gif"):
        if kind in data:
            return f"![output](data:{kind};base64,{''.join(data[kind]).replace(chr(10), '')})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
