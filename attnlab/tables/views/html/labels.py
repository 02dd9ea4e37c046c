"""The page's words and numbers: what a status, a verdict or a mark is called, and the small pieces of markup that are on all its parts."""

from html import escape

from attnlab.tables.model import RunOfCell

VERDICTS = {
    "holds": "the published value and ours agree by the stated rule",
    "differs": "the published value and ours differ by the stated rule",
    "too few seeds": "not enough finished seeds for a verdict",
    "other data": "measured on other data than the paper’s, so not to be compared",
    "not published": "the paper gives no value here",
    "missing": "no finished seed yet",
}
MARKS = {
    "code": "read in the authors’ code or its output",
    "page": "read in the paper",
    "memory": "recalled, not read again",
    "text": "given in the paper’s text",
    "fig": "read off a plot",
}


def called(status: str, count: int = 1) -> str:
    """A status by its name, or by a longer one where that is too short."""
    return plural(count, "damaged record").partition(" ")[2] if status == "broken" else status


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """With a real minus; a dash where there is none. A difference that rounds to zero has no sign."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}{'' if digits else ','}.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def span(interval: tuple[float, float] | None, digits: int) -> str:
    """An interval; empty where there is none."""
    return f"[{number(interval[0], digits)}, {number(interval[1], digits)}]" if interval else ""


def p_value(value: float) -> str:
    return "p &lt; 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def command_box(text: str) -> str:
    return f'<div class="command">{code(text)}<button type="button" class="plain copy">Copy</button></div>' if text else ""


def verdict_tag(verdict: str) -> str:
    kind = verdict.replace(" ", "-") if verdict in VERDICTS else "other"
    return f'<span class="verdict v-{kind}" title="{escape(VERDICTS.get(verdict, ""))}">{escape(verdict)}</span>'


def why(run: RunOfCell) -> str:
    """The first line of a run's error, not escaped."""
    return (run.error or "").strip().partition("\n")[0] or "no error was recorded"
