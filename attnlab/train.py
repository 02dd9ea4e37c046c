"""`python -m attnlab.train [group=choice ...] [key=value ...]`: one run, or with -m a sweep. `--help` lists groups and keys."""

from attnlab.cli import main
from attnlab.config import Plan


def job(plan: Plan) -> float | None:
    from attnlab.run import train  # imports torch and Lightning: not for --help, not for a typo

    return train(plan)


if __name__ == "__main__":
    main(job)
