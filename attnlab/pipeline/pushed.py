"""Pushed: the network of a run as a folder for a model hub, read back; `attnlab.hub` writes it.

    FOLDER/model.safetensors   the tested network: parameters and buffers under the names of its state_dict
    FOLDER/config.json         the run's record, less what is of the machine that made it; sealed as a result.json is, and it names the
                               SHA-256 of model.safetensors
    FOLDER/README.md, figures/ for people: never read here

A folder may be somebody else's. Its configuration is held against the same checks as a record's and permits nothing by itself; weights are
read by safetensors alone, so that nothing in it can be run.
"""

import copy
import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from attnlab.config.groups import having
from attnlab.config.plan import Plan
from attnlab.config.result import FINISHED, read_result
from attnlab.config.targets import ConfigError
from attnlab.ensemble import Ensemble
from attnlab.pipeline.factory import make_learner
from attnlab.records.weights import put_weights, read_weights

HUB = "hf://"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def is_pushed(folder: Path) -> bool:
    """Whether a folder is no run's own, but one for a hub."""
    return (folder / CONFIG).is_file() and not (folder / "result.json").exists()


def read_pushed(folder: Path, *, where: str) -> dict[str, Any]:
    """What config.json says, `config` without what is asked of a trained network, which its making does not need. ConfigError: it was not
    written by attnlab, or it or model.safetensors is not what was written."""
    found = read_result(folder, name=None, file=CONFIG)
    digest = found.result.get("files", {}).get(WEIGHTS)
    if found.status != FINISHED or digest is None:
        reason = f"{CONFIG} names no {WEIGHTS}" if found.status == FINISHED else f"its run is {found.status}"
        raise ConfigError(f"{where}: is no network that attnlab has pushed ({found.error or reason})")
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{where}: {WEIGHTS} is missing")
    if file_digest(folder / WEIGHTS) != digest:
        raise ConfigError(f"{where}: {WEIGHTS} is damaged or was exchanged (not the SHA-256 that {CONFIG} names); fetch it again")
    return {**found.result, "config": {**found.result["config"], **{group: {} for group in having(trains=False)}}}


def network_of_pushed(plan: Plan, data: Any, folder: Path, *, where: str) -> nn.Module:
    """The network that the run tested, on the CPU: an average of weights, a snapshots' ensemble. ConfigError: other weights than its."""
    state = read_weights(folder / WEIGHTS, where=f"{where}: {WEIGHTS}")
    learner = make_learner(looked_at(plan), data, trains=False)
    learner.prepare()
    members = {name.split(".")[1] for name in state if name.startswith("members.")}
    network = Ensemble([copy.deepcopy(learner.network) for _ in members]) if members else learner.tested()
    put_weights(network, state, where=f"{where}: {WEIGHTS}")
    return network


def fetched(word: str, *, where: str) -> Path:
    """The folder in the hub's cache of `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`, fetched if it is not there. ConfigError, one line:
    no huggingface_hub, no such repository or revision, no network."""
    name, _, revision = word.removeprefix(HUB).partition("@")
    hub = client(where=where)
    try:
        found = hub.snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS], library_name="attnlab")
    except Exception as error:  # the client's, its HTTP library's and the system's kinds
        raise ConfigError(f"{where}: {said(error, name)}") from error
    if not (Path(found) / CONFIG).is_file():
        raise ConfigError(f"{where}: is no network that attnlab has pushed (it has no {CONFIG})")
    return Path(found)


def client(*, where: str) -> Any:
    """The module huggingface_hub, an extra."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(f"{where}: needs the package huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub


def said(error: Exception, name: str) -> str:
    """What a person does about an error of the hub's client."""
    kind, text = type(error).__name__, " ".join(str(error).split())[:160]
    if kind == "HFValidationError":
        return f"{name!r} is no name of a repository; write {HUB}OWNER/NAME"
    if kind in ("RepositoryNotFoundError", "GatedRepoError"):
        return f"the hub has no repository {name}, or you may not see it; `hf auth login` says who you are"
    if kind == "RevisionNotFoundError":
        return f"{name} has no such revision"
    return f"the hub was not reached, and {name} is not in its cache ({kind}: {text}); a folder works without a network"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hubs state it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def looked_at(plan: Plan) -> Plan:
    """The plan of a network that is only looked at: on the CPU in fp32, whatever machine it was trained on."""
    here: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": 32, "compile": "off"}
    return plan.changed(full={**plan.full, "trainer": {**plan.full["trainer"], **here}})
