"""Command line: `main(job)` is `python -m attnlab.train`, one run or with -m a sweep, under Hydra."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from attnlab.config.checks import check
from attnlab.config.compose import hydra_version, loosen, options_last, typed, unresolved
from attnlab.config.plan import Plan
from attnlab.config.targets import config_dir
from attnlab.sweeps import local, search, workers
from attnlab.sweeps.processes import die_with_parent
from attnlab.terminal import console, leave, message, one_line, reader_left, tells_version


def answered(command: Sequence[str]) -> bool:
    """Whether a command line only asks something, after answering it on stdout: --help [TOPIC], --version, places [group=choice ...]."""
    if {"-h", "--help"} & set(command):
        from attnlab.config.help import help_text

        print(help_text(command))
    elif "places" in command:
        from attnlab.config.compose import compose
        from attnlab.pipeline.places import tell_places

        tell_places(compose([word for word in command if word != "places"]))
    elif not tells_version(command):
        return False
    sys.stdout.flush()
    return True


def main(job: Callable[[Plan], Any], *, config_name: str = "train") -> None:
    """Run `job(plan)` under Hydra's command line, or with -m a sweep of them. A user's mistake ends in one line and exit code 1."""
    die_with_parent()
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from attnlab.config.sources import check_options, checked_sources

    console()
    local.register()
    workers.register()
    search.register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors to us, who print them in one line
    command = list(sys.argv[1:])
    with one_line():
        try:
            if answered(command):
                return
        except BrokenPipeError:
            reader_left()
        sys.argv[1:] = options_last(loosen(command))
        check_options(sys.argv[1:])
    failed: list[Exception] = []

    @hydra.main(config_path=str(config_dir().resolve()), config_name=config_name, **hydra_version())
    def entry(cfg: Any) -> Any:
        try:
            context = HydraConfig.get()
            overrides = [typed(text) for text in unresolved(context.overrides.task)]
            return job(check(cfg, choices=context.runtime.choices, overrides=overrides))
        except Exception as error:
            failed.append(error)

    try:
        with checked_sources():
            if {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(command):
                from attnlab.sweeps.sweep import Sweep

                sweep = Sweep(job)
                count = sweep.run(entry)
                if not (sweep.jobs or sweep.sweeper):  # a sweeper of ours may have nothing left to do
                    leave("the sweep has no job: a key is swept over no value, as in seed=range(0)")
                if count:
                    leave(f"{count} of the sweep's jobs failed; repeat the command to retry them")
            else:
                entry()
                if failed:
                    raise failed[0]
    except KeyboardInterrupt:
        leave("interrupted; the same command goes on from the last checkpoint", code=130)
    except BrokenPipeError:
        reader_left()
    except Exception as error:
        text = message(error)
        if text is None:  # our own mistake: show where
            raise
        leave(text)
