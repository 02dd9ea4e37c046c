"""A run's network for a model hub: the same logits bit for bit, a card that tells what the record tells, and nothing of the machine."""

import json
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import attnlab
from attnlab import runs as command
from attnlab.config.result import sealed
from attnlab.hub.portable import is_path, portable
from attnlab.hub.push import push
from attnlab.records.query import StoredRun
from tests.hub.conftest import COMMIT, Hub, run_of

CASES = {
    "averaged": ["callback=[ema]", "attention=rect"],
    "snapshots": ["callback=[snapshots]", "callback.snapshots.lengths=[1,1]", "trainer.max_epochs=2"],
    "passes": ["callback=[mc_dropout]", "callback.mc_dropout.passes=2", "regularizer=dropout"],
    "joint": ["algorithm=joint_ensemble", "algorithm.members=2", "algorithm.repulsion=none"],
    "masked": ["callback=[channel_propagation]", "callback.channel_propagation.warmup=0"],
    "best": ["callback=[best]", "data.val=0.2"],
}


def logits(loaded: attnlab.pipeline.load.Loaded) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return loaded.network(loaded.normalise(torch.randint(0, 256, (5, *loaded.shape), dtype=torch.uint8))).logits


@pytest.mark.parametrize("case", CASES)
def test_what_is_loaded_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    run = run_of(*CASES[case], root=tmp_path / "outputs")
    push(run, str(tmp_path / "folder"))
    before = torch.get_rng_state()
    one, two = attnlab.load(run.folder), attnlab.load(tmp_path / "folder")
    assert torch.equal(torch.get_rng_state(), before)
    assert type(one.network) is type(two.network) and not two.network.training
    assert torch.equal(logits(one), logits(two)) and two.classes == one.classes and two.shape == one.shape


def test_a_network_that_started_from_a_file_needs_it_no_more(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=0, in_chans=1).state_dict(), tmp_path / "hers.pth")
    words = ["~model.width", "model=timm", "model.name=test_resnet", f"model.weights={tmp_path}/hers.pth", "data.size=32"]
    run = run_of(*words, root=tmp_path / "outputs")
    push(run, str(tmp_path / "folder"))
    wanted = logits(attnlab.load(run.folder))
    (tmp_path / "hers.pth").unlink()
    assert torch.equal(logits(attnlab.load(run.folder)), wanted) and torch.equal(logits(attnlab.load(tmp_path / "folder")), wanted)


def test_the_folder_tells_what_the_record_tells(runs: list[StoredRun], made: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    command.run_command(["push", runs[0].address[:6], "to=hers", "licence=apache-2.0", f"paths.outputs={made}"])
    assert capsys.readouterr().out == "hers\n"
    text = Path("hers/README.md").read_text()
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    (result,) = told["model-index"][0]["results"]
    values = {one["name"]: one["value"] for one in result["metrics"]}
    assert told["license"] == "apache-2.0" and told["library_name"] == "attnlab" and {"resnet18", "rect"} < {*told["tags"]}
    assert values["test/acc"] == runs[0].metrics["test/acc"] and "ood/msp/photos/auroc" in values and told["datasets"] == ["digits"]
    for key in ("test/acc", "test/nll", "ood/msp/photos/auroc"):
        row = next(line for line in body.splitlines() if line.startswith(f"| {key} |")).split(" | ")
        low, high = map(float, row[2].split(" to "))
        both = [run.metrics[key] for run in runs]
        assert low < runs[0].metrics[key] < high and row[3].startswith(f"{sum(both) / 2:.4f} ± ") and row[3].endswith("(2)")
    config = json.loads(Path("hers/config.json").read_text())
    assert config["seeds"]["test/acc"]["seeds"] == [0, 1] and config["git"] == runs[0].result["git"]
    assert config["data"]["digests"] == runs[0].result["data"]["digests"] and config["versions"]["torch"] in body
    pictures = re.findall(r"!\[.*\]\((figures/.*\.png)\)", body)
    assert pictures and all(Path("hers", path).is_file() for path in pictures)
    code = re.search(r"```python\n(.*?)```", body, re.S)[1]
    names = {"images_BCHW": torch.zeros(2, 1, 16, 16, dtype=torch.uint8)}
    exec(compile(code, "card.py", "exec"), names)
    assert names["logits"].shape == (2, 10) and len(code.splitlines()) == 4


def test_nothing_of_the_machine_is_in_it(runs: list[StoredRun], made: Path, tmp_path: Path) -> None:
    push(runs[0], str(tmp_path / "folder"), figures=False)
    assert "license" not in (tmp_path / "folder" / "README.md").read_text().split("---")[1]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for path in (tmp_path / "folder").iterdir():
        content = path.read_bytes().decode(errors="replace")
        assert not [word for word in (str(made), "secret_place", str(Path.home()), str(tmp_path)) if word in content], path


def test_paths_are_shortened_and_nothing_else() -> None:
    for text in ("/home/me/birds", "~/birds", "../birds", "./birds", r"C:\me\birds", "local-dir:/home/me/birds", "a: /home/me/birds"):
        assert is_path(text, "name")
    for text in ("test/acc", "hf-hub:timm/resnet18", "layer*.*.bn1", "cifar100/test_jpeg75", "maxdropout/resnet18", "0/0"):
        assert not is_path(text, "name")
    assert is_path("sub/birds", "path") and is_path("sub/hers.pth", "weights") and not is_path("birds", "path")
    words = ["data.path='/home/jane doe/a b/birds'", "data.ood=[photos,../x/scans,'/q r/s']", "experiment=maxdropout/resnet18", "seed=1"]
    secret = ["logger.entity=me", "paths.outputs=/x", "hydra.launcher.address=tcp://me", "allow_targets=[mine]"]
    config = {
        "data": {"path": "/home/jane doe/birds", "root": "${oc.env:HOME}", "ood": ["../x/scans"]},
        "logger": {"entity": "me"},
        "paths": {},
    }
    found = portable({"run_id": "a", "config": config, "overrides": [*words, *secret], "data": {"stamp": "0"}, "command": "x", "error": {}})
    assert found["overrides"] == ["data.path=birds", "data.ood=[photos,scans,s]", "experiment=maxdropout/resnet18", "seed=1"]
    assert found["config"] == {"data": {"path": "birds", "root": None, "ood": ["scans"]}} and found["data"] == {}
    assert not {"command", "error"} & {*found}


def test_a_hub_is_asked_for_two_files_and_the_revision(runs: list[StoredRun], hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(runs[0], str(hub.place / "me" / "net"))
    (hub.place / "me" / "net" / "pytorch_model.bin").write_bytes(b"no")
    wanted = logits(attnlab.load(runs[0].folder))
    for word in ("hf://me/net", "hf://me/net@main", f"hf://me/net@{COMMIT}"):
        assert torch.equal(logits(attnlab.load(word)), wanted)
    assert {*hub.asked} == {"config.json", "model.safetensors"}
    (hub.place / "me" / "other").mkdir()
    (hub.place / "me" / "other" / "model.safetensors").write_bytes(b"")
    for word, told in {
        "hf://me/other": "is no network that attnlab has pushed (it has no config.json)",
        "hf://me/none": "the hub has no repository me/none, or you may not see it; `hf auth login` says who you are",
        "hf://me/net@gone": "me/net has no such revision",
        "hf://net/me/x": "'net/me/x' is no name of a repository; write hf://OWNER/NAME",
    }.items():
        with pytest.raises(ValueError, match=re.escape(f"load({word!r}): {told}")):
            attnlab.load(word)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(logits(attnlab.load("hf://me/net")), wanted)  # in the cache
    with pytest.raises(ValueError, match=r"the hub was not reached, and me/none is not in its cache \(\w+: .*\); a folder works without"):
        attnlab.load("hf://me/none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"needs the package huggingface_hub: pip install huggingface_hub"):
        attnlab.load("hf://me/net")


def test_what_is_sent_and_where(runs: list[StoredRun], monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's HfApi is one that records its calls."""
    calls: list[tuple] = []

    class Api:
        def __init__(self, **options: object) -> None:
            calls.append(("api", options))

        def create_repo(self, name: str, **options: object) -> str:
            calls.append(("create", name, options))
            return f"https://hub/{name}"

        def upload_folder(self, *, folder_path: Path, **options: object) -> None:
            files = {str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()}
            calls.append(("upload", options, files, torch.equal(logits(attnlab.load(folder_path)), logits(attnlab.load(runs[0].folder)))))
            card = (folder_path / "README.md").read_text()
            assert 'load("hf://me/net")' in card and "None has been chosen" in card

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push(runs[0], "hf://me/net", figures=False) == "https://hub/me/net"
    assert calls == [
        ("api", {"library_name": "attnlab"}),
        ("create", "me/net", {"private": True, "exist_ok": True}),
        ("upload", {"repo_id": "me/net", "commit_message": runs[0].run_id}, {"README.md", "config.json", "model.safetensors"}, True),
    ]

    def refuse(*_: object, **__: object) -> None:
        raise type("HfHubHTTPError", (OSError,), {})("403 Forbidden: no rights")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(ValueError, match=r"push digits-.*: the hub was not reached.*403 Forbidden.*; to=FOLDER needs no hub"):
        push(runs[0], "hf://me/net")


def test_mistakes_are_one_line(runs: list[StoredRun], made: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    unfinished = StoredRun(SimpleNamespace(folder=runs[0].folder, result={"command": "X"}, error=None, status="failed"))
    with pytest.raises(ValueError, match="is failed, not finished; repeat its command first: X"):
        push(unfinished, str(tmp_path / "new"))
    for words, told in {
        ("push", "ffffffff", "to=x"): "ffffffff: there is no such run",
        ("push", runs[0].run_id): "push: say where: to=FOLDER, or to=hf://OWNER/NAME",
        ("push", "to=x"): "push takes 1 run, got 0",
        ("push", runs[0].run_id, f"to={tmp_path}/full"): "full: is there and not empty; give a new folder",
        ("push", runs[0].run_id, "to=x", "license=mit"): "license=mit: push has no such option; nearest: licence",
        ("push", runs[0].run_id, "to=x", "licence=My Own"): "licence=My Own: must be a licence's short name",
        ("push", runs[0].run_id, "to=x", "figures=no"): "figures=no: must be true or false",
        ("push", runs[0].run_id, "to=hf://me"): "to=hf://me: write hf://OWNER/NAME",
        ("push", runs[0].run_id, "to=ftp://me/x"): "to=ftp://me/x: write hf://OWNER/NAME, or a folder",
    }.items():
        with pytest.raises(ValueError, match=re.escape(told)):
            command.run_command([*words, f"paths.outputs={made}"])
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    left = made.parent / "left"
    (runs[0].folder / "last.ckpt").rename(left)
    try:
        with pytest.raises(ValueError, match=r"its last\.ckpt is missing"):
            push(runs[0], str(tmp_path / "new"))
    finally:
        left.rename(runs[0].folder / "last.ckpt")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))


def test_a_folder_of_somebody_else_runs_nothing(runs: list[StoredRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, marker = tmp_path / "theirs", tmp_path / "marker"
    (tmp_path / "evil_of_hub.py").write_text(f"open({str(marker)!r}, 'w')\nfrom torch import nn\nclass Net(nn.Identity): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    push(runs[0], str(folder), figures=False)
    config, weights = json.loads((folder / "config.json").read_text()), (folder / "model.safetensors").read_bytes()

    def told(change: dict, *, content: bytes = weights, seal: bool = True) -> str:
        (folder / "model.safetensors").write_bytes(content)
        changed = {**config, **change}
        (folder / "config.json").write_text(json.dumps(sealed(changed) if seal else changed))
        with pytest.raises(ValueError) as caught:
            attnlab.load(folder)
        assert "\n" not in str(caught.value) and not marker.exists()
        return str(caught.value)

    def digest(content: bytes) -> dict:
        import hashlib

        return {"files": {"model.safetensors": hashlib.sha256(content).hexdigest()}}

    net = {**config["config"], "model": {"_target_": "evil_of_hub.Net"}, "allow_targets": ["evil_of_hub"]}
    assert "'evil_of_hub.Net' is outside the packages of components" in told({"config": net})
    heads = {**config["config"], "ood": {"evil": {"_target_": "evil_of_hub.Net"}}, "logger": {"_target_": "evil_of_hub.Net"}}
    (folder / "config.json").write_text(json.dumps(sealed({**config, "config": heads})))
    attnlab.load(folder)  # what its making does not need is not looked at
    assert not marker.exists()
    assert "is damaged (its contents are not what was written)" in told({"seed": 7}, seal=False)
    assert "model.safetensors is damaged or was exchanged" in told({}, content=weights[:-1] + b"\0")
    pickled = pickle.dumps(Bomb(marker))
    assert "is no state dict that can be loaded" in told(digest(pickled), content=pickled)
    assert "its run is running" in told({"status": "running"}) and "config.json names no model.safetensors" in told({"files": {}})
    from safetensors.torch import load, save

    state = load(weights)
    fewer = save({name: value for name, value in state.items() if "fc" not in name})
    assert "does not fit the network" in told(digest(fewer), content=fewer)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(sealed(config)))
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        attnlab.load(folder)
    (folder / "config.json").write_text('{"architectures": ["Bert"]}')
    with pytest.raises(ValueError, match="is no network that attnlab has pushed"):
        attnlab.load(folder)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return open, (self.marker, "w")


def test_a_records_text_stays_text(runs: list[StoredRun]) -> None:
    from attnlab.hub.card import card

    record = {**portable(runs[0].result), "seeds": {}, "run_id": "a|b", "warnings": ["x | <script> ](http://evil) `y\n# z"]}
    record["data"] = {**record["data"], "name": "n: [*\n---\nq", "classes": ["<b>", "a|b"]}
    record["overrides"] = ["name=`x\n```\nrm"]
    text = card(record, source='a"b', licence=None, intervals={}, figures=[])
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["name"] == "a|b" and "<script>" not in body and "](http" not in body
    assert "\n# z" not in body and body.count("```") == 4 and 'load("a\\"b")' in body
