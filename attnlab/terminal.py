"""Terminal: what a person sees: tables; of an error one line for a mistake of theirs, a traceback for one of ours."""

import contextlib
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from attnlab.config.compose import explain

log = logging.getLogger("attnlab")


# what a terminal obeys and does not show: control characters less tab and line feed, C1, and those that turn the direction of text
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Text as it may go to a terminal: names, labels and errors come from files of others, and an escape sequence in them is shown, not
    obeyed."""
    return OBEYED.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def console() -> None:
    """Our messages go to stderr as plain lines; stdout is for the path of the record alone."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(Visible("%(message)s"))
        handler.setLevel(logging.INFO)
        log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A table as plain lines, its columns as wide as they need; those named in `right` end together."""
    heads, right = [*map(visible, heads)], [*map(visible, right)]
    lines = [heads, *([*map(visible, row)] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    placed = [
        [cell.rjust(width) if head in right else cell.ljust(width) for cell, width, head in zip(line, widths, heads)] for line in lines
    ]
    return ["  ".join(cells).rstrip() for cells in placed]


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), colours: Mapping[str, str] | None = None
) -> None:
    """On stdout: with colours (by a cell's text) in a terminal; in a pipe plain columns."""
    if not sys.stdout.isatty():
        print("\n".join(aligned(heads, rows, right=right)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(visible(head), justify="right" if head in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell), style=(colours or {}).get(cell.removesuffix(" !"), "")) for cell in row))
    Console().print(table)


def tells_version(words: Sequence[str]) -> bool:
    """Answers `--version` on stdout."""
    if "--version" in words:
        import attnlab

        print(f"attnlab {attnlab.__version__}")
    return "--version" in words


@contextlib.contextmanager
def as_ctrl_c() -> Iterator[None]:
    """SIGTERM and a closed terminal end what is inside as Ctrl-C does."""
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(text: str, *, code: int = 1) -> None:
    sys.stderr.write(f"attnlab: {visible(' '.join(text.split()))}\n")
    sys.stderr.flush()
    sys.exit(code)


def reader_left() -> NoReturn:
    """The reader of our output left (`| head`): there is nobody to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """A user's mistake inside the block (ValueError, OSError, Ctrl-C) ends the program with one line; our own keeps its traceback."""
    try:
        yield
    except ValueError as error:
        leave(str(error))
    except OSError as error:
        leave(describe_os_error(error))
    except KeyboardInterrupt:
        leave("interrupted", code=130)


def message(error: BaseException) -> str | None:
    """One line for a user's mistake; None for ours."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error)
    if isinstance(error, OSError) and error.errno:
        return describe_os_error(error)
    if isinstance(error, ValueError | OSError | RuntimeError):
        return str(error).split("\nException raised from ")[0]  # torch adds a page of its own C++ frames
    return None


def describe_os_error(error: OSError) -> str:
    name = f" ({error.filename})" if error.filename else ""
    remedy = {
        errno.ENOSPC: "the disk is full; free some space and repeat the command: what was finished is kept",
        errno.EDQUOT: "the disk quota is used up; free some space and repeat the command: what was finished is kept",
        errno.EROFS: "the folder is read-only; choose another with paths.outputs=FOLDER",
        errno.EACCES: "no permission; choose another folder with paths.outputs=FOLDER",
        errno.EPERM: "no permission; choose another folder with paths.outputs=FOLDER",
    }.get(error.errno)
    return f"{remedy}{name}" if remedy else f"{error.strerror or error}{name}"
