"""Dry run: `check=true`, every part of a plan on one batch. Nothing is written."""

import itertools
import logging
import math

from attnlab.config.plan import Plan
from attnlab.pipeline.factory import make_data, make_evaluators, make_explainers, make_heads, make_learner, make_settings
from attnlab.pipeline.teacher import make_teacher

log = logging.getLogger("attnlab")


def dry_run(plan: Plan) -> None:
    """check=true: build everything, take two steps, test and score one batch. Nothing is written."""
    from attnlab.ood.evaluate import evaluate_heads
    from attnlab.ood.extract import extract
    from attnlab.training.epoch import Batch

    settings = make_settings(plan)
    settings.apply()
    data = make_data(plan)
    learner = make_learner(plan, data, settings, teacher=make_teacher(plan, data, settings)).to(settings.device)
    heads, explainers = make_heads(plan, data, settings), make_explainers(plan, data, settings)
    evaluators = make_evaluators(plan, data, settings)
    loader = data.train_loader(settings.device)
    learner.steps_per_epoch = len(loader)
    loader.with_index = "index" in learner.asks
    learner.configure_optimizers()
    learner.train()
    learner.prepare()
    totals = learner.totals
    for batch in itertools.islice(itertools.chain(loader, loader), 2):
        learner.step(Batch(*batch), totals)
        learner.after_step(totals.steps)
    values = {name: value / totals.steps for name, value in zip(totals.names, totals.sums.tolist())}
    if not all(math.isfinite(value) for value in values.values()):
        raise ValueError(f"the loss is not finite after {totals.steps} steps: {values}")
    log.info("steps ok  %s", "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    with settings.autocast():
        test = list(itertools.islice(data.eval_loader("test", settings.device), 1))
        bank = extract(learner.network, test)
        data.task.metrics(bank.logits.cpu(), bank.labels.cpu())
        log.info("test  ok  %d images", len(bank.labels))
        if heads and data.ood:
            foreign = {name: list(itertools.islice(data.eval_loader(name, settings.device), 1)) for name in data.ood}
            _, _, errors = evaluate_heads(learner.network, heads, list(itertools.islice(loader, 16)), test, foreign, banks={"test": bank})
            if errors:
                raise ValueError("; ".join(f"ood.{name}: {message}" for name, message in errors.items()))
            log.info("ood   ok  %s on %s", ", ".join(heads), ", ".join(data.ood))
    for name, explainer in explainers.items():
        if hasattr(explainer, "prepare"):
            log.info("map   --  %s is fitted to the trained network first", name)
            continue
        (x, y, *_) = test[0]
        maps = explainer.explain(learner.network, x[:2], y[:2])
        log.info("map   ok  %s %s", name, tuple(maps.shape))
    log.info("then      %s", ", ".join(evaluators) or "no evaluator")
    log.info("check ok  %s, %s parameters", plan.run_id, f"{sum(p.numel() for p in learner.network.parameters()):,}")
