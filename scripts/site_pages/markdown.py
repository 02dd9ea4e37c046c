"""The Markdown of the repository as pages: links between pages stay, links to files of the project lead to copies beside the pages."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"(?ms)^(`{3,})[^\n]*\n.*?^\1 *$")
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")  # pages beside those of docs/
SHOWN = {".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".sh", ".cff", ".c", ".css", ".js", ""}


def sources(root: Path) -> dict[PurePosixPath, PurePosixPath]:
    """Page by file of the repository."""
    written = {path.relative_to(root): path.relative_to(root / "docs") for path in sorted((root / "docs").rglob("*.md"))}
    written |= {Path(name): Path("project") / name for name in PROJECT}
    return {PurePosixPath(file): PurePosixPath(page) for file, page in written.items()}


def links(text: str) -> Iterator[re.Match]:
    """Links and pictures, outside of fenced blocks."""
    yield from LINK.finditer(FENCE.sub(lambda found: " " * len(found[0]), text))


def rewritten(text: str, file: PurePosixPath, pages: Mapping[PurePosixPath, PurePosixPath], root: Path) -> tuple[str, list[PurePosixPath]]:
    """The text of a page, and the files of the project that it links to. ValueError: a link to what is not there."""
    files: list[PurePosixPath] = []

    def to(found: re.Match) -> str:
        mark, words, target = found.groups()
        place, hash, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not place:
            return found[0]
        there = PurePosixPath(normpath(str(file.parent / place)))
        if there in pages:
            return f"{mark}[{words}]({relpath(str(pages[there]), str(pages[file].parent))}{hash}{anchor})"
        if not (root / there).exists():
            raise ValueError(f"{file}: [{words}]({target}): there is no {there}")
        if there.parts[0] == "docs" and mark:
            return f"![{words}]({relpath(str(there.relative_to('docs')), str(pages[file].parent))})"
        if there.suffix not in SHOWN or not (root / there).is_file():
            return f"{words} (`{there}`)"
        files.append(there)
        return f'<a href="{relpath(f"files/{there}.txt", str(pages[file].parent))}">{words}</a>'

    parts, end = [], 0
    for found in links(text):
        parts += [text[end : found.start()], to(found)]
        end = found.end()
    return "".join([*parts, text[end:]]), files
