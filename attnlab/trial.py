"""Trial: `check=true`, every part of a plan on one batch. Nothing is written."""

import itertools
import logging

import torch

from attnlab.config import Plan
from attnlab.parts import make_data, make_heads, make_learner, make_settings

log = logging.getLogger("attnlab")


def try_out(plan: Plan) -> None:
    """check=true: build everything, take two steps, test and score one batch. Nothing is written."""
    from attnlab.metrics import classification_metrics
    from attnlab.ood.bank import evaluate_heads, extract

    settings = make_settings(plan)
    settings.apply()
    data = make_data(plan)
    learner = make_learner(plan, data).to(settings.device)
    heads = make_heads(plan, data)
    loader = data.train_loader(settings.device)
    optimizer = learner.make_optimizer(list(learner.parameters()))
    learner.make_schedule(total_steps=settings.max_epochs * len(loader), steps_per_epoch=len(loader))(0)
    learner.train()
    for x, y in itertools.islice(itertools.chain(loader, loader), 2):
        with settings.autocast():
            terms, _ = learner.terms(x, y)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    values = {name: float(term.detach()) for name, term in terms.items()}
    if not torch.isfinite(total):
        raise ValueError(f"the loss is not finite after one step: {values}")
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
