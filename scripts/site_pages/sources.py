"""What Sphinx reads, in a folder outside the sources: docs/ with its links followed, and the pages that are made."""

import shutil
from pathlib import Path

from catalogue import ROOT
from site_pages import api, groups, markdown
from site_pages.markdown import rewritten, sources

TOP = ["start", "ideas", "tutorials/index", "groups/index", "results", "api/index", "tables", "speed", "trust", "catalogue"]
TOP += [f"project/{name.removesuffix('.md')}" for name in markdown.PROJECT]


def write(folder: Path, *, pictures: bool) -> None:
    """Pages to `folder`, the files that they link to beside it."""
    pages, linked = sources(ROOT), set()
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.md", "*.yaml"))
    for file, page in pages.items():
        text, files = rewritten((ROOT / file).read_text(), file, pages, ROOT)
        linked |= {*files}
        _put(folder / page, text + _toctree(str(page), text, [str(one.with_suffix("")) for one in pages.values()]))
    drawn = None
    if pictures:
        from site_pages.pictures import draw

        drawn = folder / "drawn"
        draw(drawn)
    _put(folder / "groups" / "index.rst", groups.index())
    for group in groups.names():
        text = groups.page(group, drawn)
        linked |= {*groups.files(text)}
        _put(folder / "groups" / f"{group}.rst", text)
    for name, text in api.pages().items():
        _put(folder / "api" / f"{name}.rst", text)
    for file in sorted(linked):
        _put(folder.with_name("files") / f"{file}.txt", (ROOT / file).read_text())


def _toctree(page: str, text: str, pages: list[str]) -> str:
    """What places of the site lie below a page of Markdown, which forges need not show."""
    if page not in ("index.md", "tutorials/index.md"):
        return ""
    below = [*TOP, *(name for name in pages if "/" not in name and name not in (*TOP, "index"))]
    tutorials = [name.removeprefix("tutorials/") for name in pages if name.startswith("tutorials/") and not name.endswith("/index")]
    if page == "tutorials/index.md":
        tutorials.sort(key=lambda name: text.index(f"({name}.md)"))  # as the page names them
    return "\n".join(["", "```{toctree}", ":hidden:", "", *(below if page == "index.md" else tutorials), "```", ""])


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
