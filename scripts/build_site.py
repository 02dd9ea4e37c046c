"""The documentation as a folder of pages: `python scripts/build_site.py` writes build/site, to be opened from the disk or served.

python scripts/build_site.py                     with pictures, drawn from a tiny run that this trains
python scripts/build_site.py --no-pictures       without them, in half the time
python scripts/build_site.py --out FOLDER        elsewhere

Needs `pip install -e ".[docs]"`, and no network. Warnings are errors. The same commit gives the same pages.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
MARK = ".attnlab-site"  # in a folder that this wrote, and may write anew


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", metavar="FOLDER")
    parser.add_argument("--no-pictures", action="store_true", help="draw none")
    given = parser.parse_args(words)
    out = given.out.resolve()
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        parser.error(f"--out {given.out}: holds something else; name an empty folder")
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError:
        parser.error('needs Sphinx: pip install -e ".[docs]"')
    from site_pages.sources import write

    with tempfile.TemporaryDirectory() as work:
        source, pages = Path(work) / "source", Path(work) / "pages"
        write(source, pictures=not given.no_pictures)
        shutil.copytree(source.with_name("files"), pages / "files")
        conf = str(ROOT / "scripts" / "site_pages")
        code = build_main(["-q", "-W", "--keep-going", "-b", "html", "-c", conf, "-d", f"{work}/trees", str(source), str(pages)])
        if code:
            return code
        (pages / MARK).touch()
        (pages / ".nojekyll").touch()  # GitHub's pages keep folders that begin with _
        (pages / ".buildinfo").unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(pages, out)
    print(os.path.relpath(out / "index.html"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
