"""`python -m attnlab.train [group=choice ...] [key=value ...]`: one run, or with -m a sweep. `--help` lists groups and keys."""

from attnlab.config.plan import Plan
from attnlab.sweeps.cli import main


def job(plan: Plan) -> float | None:
    from attnlab.records.lookup import skip

    done, objective = skip(plan)
    if done:
        return objective
    from attnlab.pipeline.train import train  # imports Lightning: not for --help, not for a typo, not for a run that is there

    return train(plan)


def run() -> None:
    """The console script `attnlab-train`."""
    main(job)


if __name__ == "__main__":
    run()
