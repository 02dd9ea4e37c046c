"""The site's pages, without Sphinx: docstrings as markup, a page a group whatever is in it, links that lead somewhere."""

import sys
from pathlib import Path, PurePosixPath

import pytest

from tests import ROOT

sys.path.append(str(ROOT / "scripts"))  # as `python scripts/build_site.py` has it

import build_site
from site_pages import groups, markdown
from site_pages.docstrings import restructured


def test_a_docstring_keeps_its_maths_and_lists() -> None:
    text = """Weights of `x` and *all* of y_i (2007.13723).

    a = b_c * d
      where the next is aligned:
        f = |x|
    - one, over
      two lines
    - two

    Args:
        first, second: of
            which_one. ``in [0, 1]``
        other: [s]
    """
    found = restructured(text)
    assert found[0].startswith(r"Weights of \ ``x``\  and \*all\* of y\_i (\ `2007.13723 <https://arxiv.org/abs/2007.13723>`__\ )")
    assert found[2:7] == [".. code-block:: text", "", "   a = b_c * d", "     where the next is aligned:", "       f = |x|"]
    assert "- one, over two lines" in found and "- two" in found and "**Args**" in found
    assert "- \\ ``first, second``\\ : of which\\_one. \\ ``in [0, 1]``\\ " in found


@pytest.mark.parametrize("text", ["", "One line", "Ends in: \n\n    x = 1", "`", "a | b_ `c` ``d`` <e>", "Args:", "    only\n    indented"])
def test_any_docstring_is_some_text(text: str) -> None:
    assert all("\n" not in line for line in restructured(text))


def test_every_folder_of_configs_has_a_page() -> None:
    folders = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir() and path.name != "local"}
    assert {*groups.names()} == folders and all(groups.purpose(name) for name in folders)
    page = groups.page("loss")
    for path in (ROOT / "configs" / "loss").glob("*.yaml"):
        assert f".. _loss-{path.stem.replace('_', '-')}:" in page
    assert "``loss.delta_dist``" in page and "delta\\_dist" in page and "python -m attnlab.train loss=" in page
    assert page.count("<../files/tests/") == len(groups.files(page)) > 3 and all((ROOT / file).is_file() for file in groups.files(page))


def test_a_new_group_and_a_class_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "train.yaml": "defaults:\n  - attention: none   # what weighs features\n",
        "paint/red.yaml": "# Red [paint]_ | a *first* line\ncolour: 1\n",
        "paint/deep/blue.yaml": "",
        "attention/plain.yaml": "plain:\n  at: layer*\n  module: {_target_: torch.nn.Identity}\n",
        "attention/none.yaml": "{}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for module in ("site_pages.groups", "attnlab.config.help"):
        monkeypatch.setattr(f"{module}.config_dir", lambda: tmp_path)
    monkeypatch.setattr("catalogue.inspect.getdoc", lambda thing: None)
    assert groups.names() == ["attention", "paint"]
    paint, attention = groups.page("paint"), groups.page("attention")
    assert (
        ".. _paint-red:" in paint
        and ".. _paint-deep-blue:" in paint
        and "deep/blue" in paint
        and r"Red [paint]\_ \| a \*first\* line" in paint
    )
    assert "``attention.plain.at``" in attention and "nothing of this group" in attention and "What weighs features." in attention
    assert "groups/" not in groups.index() and "   paint" in groups.index()


@pytest.mark.parametrize("file", [*markdown.sources(ROOT)], ids=str)
def test_every_link_of_the_docs_leads_somewhere(file: PurePosixPath) -> None:
    pages = markdown.sources(ROOT)
    text, files = markdown.rewritten((ROOT / file).read_text(), file, pages, ROOT)
    assert all((ROOT / one).is_file() for one in files)
    for found in markdown.links(text):
        place, _, anchor = found[3].partition("#")
        target = pages[file].parent / place
        if "://" not in found[3] and place and not found[1]:
            assert PurePosixPath(*_normal(target)) in pages.values(), found[0]
        assert not anchor or "://" in found[3], f"{found[0]}: no page links to a part of another; mind its anchor if one is to"


def _normal(path: PurePosixPath) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return parts


def test_a_link_to_nothing_is_named() -> None:
    pages = markdown.sources(ROOT)
    with pytest.raises(ValueError, match=r"docs/tables\.md: \[x\]\(gone\.md\): there is no docs/gone\.md"):
        markdown.rewritten("a [x](gone.md)", PurePosixPath("docs/tables.md"), pages, ROOT)
    text, files = markdown.rewritten("[x](../tests/conftest.py)\n```\n[y](no)\n```\n", PurePosixPath("docs/tables.md"), pages, ROOT)
    assert text.startswith('<a href="files/tests/conftest.py.txt">x</a>') and [*map(str, files)] == ["tests/conftest.py"]


def test_a_folder_of_something_else_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SystemExit):
        build_site.main(["--out", str(tmp_path)])
    assert "holds something else" in capsys.readouterr().err and (tmp_path / "mine.txt").exists()
