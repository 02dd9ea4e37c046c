"""Command lines, mutated: each answers in one line with an exit code, or means something. The command itself runs, with check=true.

Findings: `traceback`; `accepted nonsense` (a mutation that can never be right went through); `more than a line`; `hung`; `another run` (the
same thing in other words got another address); `refused` (a good line, or the same in other words, did not go through).
"""

import random
import re
import tempfile
import time
import traceback

from attnlab.config.compose import compose
from attnlab.pipeline.dry_run import dry_run
from attnlab.terminal import console, leave, message, visible
from tests.attack.grammar import GOOD, REFUSE, SAME, SMALL, Mutant, mutants
from tests.attack.report import Report, attacked
from tests.commands import Ended, module

# what a dry run says on its way to an error
ON_THE_WAY = re.compile(r"(data|steps ok|test  ok|ood   ok|map   ok|then|check ok) |\w+ (after|before|replace|reads|at) |\w+: ")


def whole(words: tuple[str, ...] | list[str]) -> list[str]:
    """The line with what makes it small, where it does not say so itself."""
    keys = {word.partition("=")[0].lstrip("+~") for word in words}
    small = [word for word in SMALL if word.partition("=")[0] not in keys]
    if any(key.partition("=")[0].startswith("explainer") for key in keys):
        small = [word for word in small if not word.startswith("evaluator")]
    return [*small, *words]


def attack(report: Report, *, seed: int) -> None:
    draw = random.Random(f"lines {seed}")
    good = list(GOOD)
    draw.shuffle(good)
    plans = {line: compose(whole(line.split())) for line in good}
    sources = {line: mutants(line.split(), plans[line], draw) for line in good}
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(good):
            if not report.more:
                return
            if number % 8 == 0:
                ended = check(report, line.split(), folder, draw)
                report.add("good")
                if ended.code or ended.traceback:
                    report.finding("refused", line, ended.err)
        while report.more:
            line = draw.choice(good)
            mutant = next(sources[line])
            if mutant.expect == SAME:
                same(report, mutant, plans[line].address)
            else:
                judge(report, mutant, check(report, mutant.words, folder, draw))
            report.add(mutant.expect, f"kind {mutant.kind}")


def check(report: Report, words: tuple[str, ...] | list[str], folder: str, draw: random.Random) -> Ended:
    """What the command says. A tenth goes through all of it; of the others the part that the parent can do without a child: composing."""
    words = [*whole(words), f"paths.outputs={folder}", "check=true"]
    if draw.random() < 0.1 or any(word.startswith("-") or not word.strip() for word in words):
        report.counts["whole commands"] += 1
        return attacked(module("attnlab.train"), *words, timeout=240)
    began = time.monotonic()
    try:
        plan = compose(words)
    except ValueError as error:
        return Ended(1, "", f"attnlab: {visible(' '.join(str(error).split()))}\n", time.monotonic() - began)
    except Exception:
        return Ended(1, "", traceback.format_exc(), time.monotonic() - began)

    def dry() -> None:
        console()
        try:
            dry_run(plan)
        except Exception as error:
            text = message(error)
            if text is None:
                raise
            leave(text)

    return attacked(dry, timeout=240)


def same(report: Report, mutant: Mutant, address: str) -> None:
    try:
        found = compose(whole(mutant.words)).address
    except ValueError as error:
        report.finding("refused", f"{mutant.kind}: {mutant.what}", str(error))
        return
    if found != address:
        report.finding("another run", f"{mutant.kind}: {mutant.what}", f"{found}, not {address}")


def judge(report: Report, mutant: Mutant, ended: Ended) -> None:
    what = f"{mutant.kind}: {mutant.what}   in   {' '.join(mutant.words)}"
    lines = ended.err.splitlines()
    lines = lines if len(lines) < 2 else [line for line in lines if line.startswith("attnlab: ") or not ON_THE_WAY.match(line)]
    report.counts["went through" if ended.code == 0 else "refused"] += 1
    if ended.traceback:
        report.finding("traceback", what, ended.err)
    elif ended.hung:
        report.finding("hung", what, ended.err)
    elif ended.code < 0:
        report.finding("killed", what, f"signal {-ended.code}: {ended.err}")
    elif ended.code == 0 and mutant.expect == REFUSE:
        report.finding("accepted nonsense", what, ended.last_line)
    elif ended.code and (len(lines) != 1 or not lines[0].startswith("attnlab: ")):
        report.finding("more than a line", what, ended.err or "(nothing)")
    elif ended.code and len(lines[0]) > 600:
        report.finding("a long line", what, lines[0])
