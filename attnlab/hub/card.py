"""Card: the README.md of a pushed network, from its record alone."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.hub.intervals import Interval
from attnlab.hub.portable import command
from attnlab.records.about import clock
from attnlab.terminal import visible

TYPES = {"test/acc": "accuracy"}  # what hubs call a metric; others go by their own names
EXPLAINED = """Fractions. The interval beside a value is of this one network, over draws of test images: Wilson's of an accuracy, the
normal one of a mean, DeLong's of an AUROC; other metrics have none. Larger OOD scores are more OOD; `fpr95` has OOD as positive."""


def card(
    record: Mapping[str, Any],
    *,
    source: str,
    licence: str | None,
    intervals: Mapping[str, Interval],
    figures: Sequence[str],
) -> str:
    """Markdown with YAML before it. record: a `portable` one, with `seeds`. source: what `load` is given. figures: paths in the folder."""
    import yaml

    seeds = record["seeds"]

    front = yaml.safe_dump(front_matter(record, licence=licence), sort_keys=False, allow_unicode=True, width=1000)
    parts = [f"---\n{front}---\n", f"# {_text(record['run_id'])}\n", summary(record), _use(record, source)]
    parts += [_results(record, intervals, seeds), _data(record), _training(record, seeds)]
    if figures:
        parts.append("## Figures\n\n" + "\n".join(f"![{_text(path)}]({path})" for path in figures) + "\n")
    parts.append(f"## Licence\n\n{_text(licence) if licence else 'None has been chosen: ask whoever put this here before you use it.'}\n")
    return "\n".join(parts)


def front_matter(record: Mapping[str, Any], *, licence: str | None) -> dict[str, Any]:
    """What hubs index. A licence only if one is given."""
    config, data = record["config"], record.get("data", {})
    components = [name for group in ("attention", "regularizer") for name in config.get(group) or {}]
    model = _target(config.get("model"))
    name = _slug(data.get("name", "")) or "unknown"
    metrics = [
        {"type": TYPES.get(key, key), "value": value, "name": key}
        for key, value in record["metrics"].items()
        if value is not None and key.startswith(("test/", "ood/"))
    ]
    result = {"task": {"type": "image-classification"}, "dataset": {"name": name, "type": name, "split": "test"}, "metrics": metrics}
    return {
        **({"license": licence} if licence else {}),
        "library_name": "attnlab",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(word for word in map(_slug, ["attnlab", model, *components]) if word)),
        **({"datasets": [name]} if name != "unknown" else {}),
        **({"metrics": ["accuracy"]} if "test/acc" in record["metrics"] else {}),
        "model-index": [{"name": record["run_id"], "results": [result]}],
    }


def summary(record: Mapping[str, Any]) -> str:
    data, config = record.get("data", {}), record["config"]
    placed = [f"{key.replace('@', ' at ')} ({how})" for key, how in record.get("places", {}).items()]
    shape = " x ".join(map(str, data.get("shape", [])))
    told = f"`{_target(config.get('model'))}`{', with ' + ', '.join(placed) if placed else ''}, "
    told += f"{record.get('parameters', 0):,} parameters, for images of {shape} in {len(data.get('classes', []))} classes."
    return _text(told, code=True) + " A network of an attnlab run, as it was tested; `config.json` is the run's record.\n"


def _use(record: Mapping[str, Any], source: str) -> str:
    packages = record["config"].get("allow_targets") or []
    allowed = f", allow_targets={json.dumps(packages)}" if packages else ""
    note = f"\nIt has components of {', '.join(map(_text, packages))}, code that you must have and trust.\n" if packages else ""
    return f"""## Use

```python
from attnlab import load

network, normalise, classes, *_ = load({json.dumps(source)}{allowed})
logits = network(normalise(images_BCHW)).logits  # images: uint8, or floats in [0, 1]
```
{note}
Weights are read by safetensors, and what `config.json` may name is what a record may: nothing in this folder is run.
"""


def _results(record: Mapping[str, Any], intervals: Mapping[str, Interval], seeds: Mapping[str, Mapping[str, Any]]) -> str:
    several = any(found["n"] > 1 for found in seeds.values())
    heads = ["metric", "value", "95% interval", *(["mean ± sd over seeds (n)", "95% interval of the mean"] if several else [])]
    rows = []
    for key, value in record["metrics"].items():
        if key.startswith("train/"):
            continue
        cells = [key, "none" if value is None else f"{value:.4f}", _interval(intervals.get(key))]
        if several:
            of_seeds = seeds.get(key, {})
            shown = f"{of_seeds['mean']:.4f} ± {of_seeds['sd']:.4f} ({of_seeds['n']})" if of_seeds.get("sd") is not None else ""
            cells += [shown, _interval(of_seeds.get("interval"))]
        rows.append(cells)
    lines = [heads, ["---", "---:", "---", *(["---", "---"] if several else [])], *rows]
    table = "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)
    told = (
        "Fractions. The interval beside a value is of this one network, over draws of test images: Wilson's of an accuracy, the normal one"
    )
    told += (
        " of a mean, DeLong's of an AUROC; none is given for other metrics. Larger OOD scores are more OOD; `fpr95` has OOD as positive."
    )
    if several:
        told += " Seeds: runs that differ from this one in their seed alone, with Student's interval."
    warned = "".join(f"\n\n**Warning of the record**: {_text(text)}" for text in record.get("warnings", []))
    return f"## Results\n\n{table}\n\n{told}{warned}\n"


def _data(record: Mapping[str, Any]) -> str:
    data = record.get("data", {})
    images = ", ".join(f"{split} {count:,}" for split, count in data.get("images", {}).items())
    digests = ", ".join(f"{split} `{digest}`" for split, digest in data.get("digests", {}).items())
    moments = "; ".join(f"{key} {[round(value, 4) for value in data[key]]}" for key in ("mean", "std") if key in data)
    lines = {
        "set": data.get("name"),
        "images": images,
        "digests": digests,
        "classes": ", ".join(data.get("classes", [])[:20]) + (", ..." if len(data.get("classes", [])) > 20 else ""),
        "normalised by": moments,
        "OOD splits": data.get("ood_splits"),
    }
    return "## Data\n\n" + "".join(f"- {key}: {_text(value, code=True)}\n" for key, value in lines.items() if value)


def _training(record: Mapping[str, Any], seeds: Mapping[str, Mapping[str, Any]]) -> str:
    git, seconds = record.get("git") or {}, record.get("seconds")
    runs = next((found["seeds"] for found in seeds.values()), [record["seed"]])
    lines = {
        "seed": f"{record['seed']}" + (f" of {', '.join(map(str, runs))}" if len(runs) > 1 else ""),
        "epochs": record.get("epochs"),
        "time": clock(seconds) if seconds is not None else None,
        "device": ", precision ".join(str(record[key]) for key in ("device", "precision") if key in record),
        "address of the training": record.get("training"),
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "commit": f"{git['commit']}{' (changed since)' if git.get('dirty') else ''}" if git.get("commit") else None,
    }
    told = "".join(f"- {key}: {_text(value)}\n" for key, value in lines.items() if value not in (None, ""))
    typed = visible(command(record["overrides"])).replace("`", "")
    return f"## Training\n\n```bash\n{typed}\n```\n\nOf paths the last part is given.\n\n{told}"


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _target(node: Any) -> str:
    """What a model is: timm's name, or that of its function."""
    node = node if isinstance(node, Mapping) else {}
    return str(node.get("name") or str(node.get("_target_", "?")).rpartition(".")[2])


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", str(text), flags=re.ASCII).strip("-.")[:64]


def _text(value: Any, *, code: bool = False) -> str:
    """A record's text in Markdown: it opens no tag, no link, no cell and no line. code: its backticks are ours."""
    text = " ".join(visible(str(value)).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("](", "] (")
    return text if code else text.replace("`", "'")
