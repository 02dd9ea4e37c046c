"""Push: the network of a finished run as a folder for a model hub, and from there to the hub, where a repository is named."""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.config.result import FINISHED, sealed
from attnlab.config.targets import ConfigError
from attnlab.hub.card import card
from attnlab.hub.intervals import intervals
from attnlab.hub.portable import portable
from attnlab.pipeline.load import Loaded, load
from attnlab.pipeline.pushed import CARD, CONFIG, HUB, WEIGHTS, client, file_digest, said
from attnlab.records.atomic import plain_json, write_atomic
from attnlab.records.grouping import ASIDE
from attnlab.records.pictures import pictures_of
from attnlab.records.query import StoredRun, is_number
from attnlab.tables import statistics
from attnlab.tables.model import bounds


def push(
    run: StoredRun,
    to: str,
    *,
    runs: Sequence[StoredRun] = (),
    licence: str | None = None,
    figures: bool = True,
    private: bool = True,
    allow_targets: Sequence[str] = (),
) -> str:
    """Write the folder `to`, or send it to the repository that `hf://OWNER/NAME` names; the folder's path or the repository's address.

    runs: among which those of other seeds are. licence: of the card; none, no word of one. private: of a repository that is made anew.
    The folder is loaded again, and its logits held against the run's, before anything is sent.
    ConfigError, one line: the run is not finished or holds no weights, `to` holds other things, the hub refuses.
    """
    where = f"push {run.run_id}"
    if run.status != FINISHED:
        raise ConfigError(f"{where}: is {run.status}, not finished; repeat its command first: {run.result.get('command')}")
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise ConfigError(f"licence={licence}: must be a licence's short name as hubs have it, such as apache-2.0, mit or other")
    options: dict[str, Any] = {"runs": runs, "licence": licence, "figures": figures, "allow_targets": allow_targets}
    if "://" in to and not to.startswith(HUB):
        raise ConfigError(f"to={to}: write {HUB}OWNER/NAME, or a folder")
    if not to.startswith(HUB):
        return str(write_folder(run, Path(to), source=Path(to).absolute().name, where=where, **options))
    name, hub = to.removeprefix(HUB), client(where=where)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        raise ConfigError(f"to={to}: write {HUB}OWNER/NAME")
    with tempfile.TemporaryDirectory() as above:
        folder = write_folder(run, Path(above) / "network", source=to, where=where, **options)
        try:
            api = hub.HfApi(library_name="attnlab")
            made = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=run.run_id)
        except Exception as error:  # the client's, its HTTP library's and the system's kinds
            raise ConfigError(f"{where}: {said(error, name)}; to=FOLDER needs no hub") from error
    return str(made)


def write_folder(
    run: StoredRun, folder: Path, *, source: str, where: str, runs: Sequence[StoredRun], licence: str | None, figures: bool,
    allow_targets: Sequence[str],
) -> Path:  # fmt: skip
    """The whole folder or none of it, and the proof that it loads as the run does."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"to={folder}: is there and not empty; give a new folder")
    loaded = load(run.folder, allow_targets=allow_targets)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as above:
        new = Path(above) / "network"
        _save(loaded.network, new / WEIGHTS)
        copied = []
        for picture in pictures_of(run.folder, run.result) if figures else ():
            copied.append(f"figures/{picture.path.name}")
            write_atomic(new / copied[-1], picture.path.read_bytes())
        seeds = over_seeds(run, runs)
        record = plain_json({**portable(loaded.result), "seeds": seeds, "files": {WEIGHTS: file_digest(new / WEIGHTS)}})
        found = intervals(run.folder, run.metrics)
        write_atomic(new / CARD, card(record, source=source, licence=licence, intervals=found, figures=copied))
        write_atomic(new / CONFIG, json.dumps(sealed(record), indent=1) + "\n")
        if not _same(loaded, load(new, allow_targets=allow_targets)):
            raise ConfigError(f"{where}: the folder would not give the run's logits again; report this run")
        os.replace(new, folder)
    return folder


def _save(network: nn.Module, path: Path) -> None:
    """Parameters and buffers of a network; a tensor under two names is stored twice, as the format wants."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    write_atomic(path, save(state, metadata={"format": "pt"}))


@torch.no_grad()
def _same(one: Loaded, two: Loaded) -> bool:
    """Whether two networks give the same logits bit for bit, for a few random images."""

    def logits(loaded: Loaded) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return loaded.network(torch.randn(4, *loaded.shape)).logits

    return torch.equal(logits(one), logits(two))


def over_seeds(run: StoredRun, runs: Sequence[StoredRun]) -> dict[str, dict[str, Any]]:
    """By metric, `mean`, `sd`, `n`, `interval` and `seeds` over this run and the finished ones that differ from it in their seed alone."""

    def rest(one: StoredRun) -> Mapping[str, Any]:
        return {key: value for key, value in one.leaves.items() if not f"{key}.".startswith(tuple(f"{key}." for key in ASIDE))}

    own = rest(run)
    same = [one for one in runs if one.status == FINISHED and one.config and rest(one) == own]
    by_seed = {one.result["seed"]: one for one in [*same, run]}
    found = {}
    for key, value in run.metrics.items():
        values = {seed: one.metrics[key] for seed, one in sorted(by_seed.items()) if is_number(one.metrics.get(key))}
        if value is not None and not key.startswith("train/"):
            several = list(values.values())
            found[key] = {"mean": statistics.mean(several), "sd": statistics.sample_sd(several), "n": len(several), "seeds": list(values)}
            found[key]["interval"] = statistics.t_interval(several, within=bounds(key))
    return found
