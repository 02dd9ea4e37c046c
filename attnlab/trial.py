"""Trial: `check=true`, every part of a plan on one batch. Nothing is written."""

import itertools
import logging
import math

from attnlab.config import Plan
from attnlab.parts import make_data, make_heads, make_learner, make_settings

log = logging.getLogger("attnlab")


def try_out(plan: Plan) -> None:
    """check=true: build everything, take two steps, test and score one batch. Nothing is written."""
    from attnlab.learner import Tally
    from attnlab.metrics import classification_metrics
    from attnlab.ood.bank import evaluate_heads, extract

    settings = make_settings(plan)
    settings.apply()
    data = make_data(plan)
    learner = make_learner(plan, data, settings).to(settings.device)
    heads = make_heads(plan, data)
    loader = data.train_loader(settings.device)
    learner.steps_per_epoch = len(loader)
    optimizer, tally = learner.configure_optimizers(), Tally()
    learner.train()
    for x, y in itertools.islice(itertools.chain(loader, loader), 2):
        learner.step(x, y, optimizer, tally)
    values = {name: value / tally.steps for name, value in zip(tally.names, tally.sums.tolist())}
    if not all(math.isfinite(value) for value in values.values()):
        raise ValueError(f"the loss is not finite after {tally.steps} steps: {values}")
    log.info("steps ok  %s", "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    with settings.autocast():
        test = list(itertools.islice(data.eval_loader("test", settings.device), 1))
        bank = extract(learner.network, test)
        classification_metrics(bank.logits, bank.labels)
        log.info("test  ok  %d images", len(bank.labels))
        if heads and data.ood:
            foreign = {name: list(itertools.islice(data.eval_loader(name, settings.device), 1)) for name in data.ood}
            _, _, errors = evaluate_heads(learner.network, heads, list(itertools.islice(loader, 16)), test, foreign, test_bank=bank)
            if errors:
                raise ValueError("; ".join(f"ood.{name}: {message}" for name, message in errors.items()))
            log.info("ood   ok  %s on %s", ", ".join(heads), ", ".join(data.ood))
    log.info("check ok  %s, %s parameters", plan.run_id, f"{sum(p.numel() for p in learner.network.parameters()):,}")
