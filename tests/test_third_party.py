"""A component of somebody else's needs a class and a yaml in their package, and nothing here."""

import json
import subprocess
import sys
from pathlib import Path

MODULE = '''
from torch import Tensor, nn


class Halve(nn.Module):
    """x / divisor."""

    def __init__(self, shape: tuple[int, ...], *, divisor: float = 2.0) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor
'''
YAML = "halve:\n  at: layer1\n  module: {_target_: theirs.halve.Halve, _partial_: true}\n"


def test_a_package_from_outside(tmp_path: Path) -> None:
    package = tmp_path / "theirs"
    (package / "conf" / "attention").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "conf" / "__init__.py").touch()
    (package / "halve.py").write_text(MODULE)
    (package / "conf" / "attention" / "halve.yaml").write_text(YAML)
    words = [
        "hydra.searchpath=[pkg://theirs.conf]",
        "attention=halve",
        "attention.halve.module.divisor=3",
        "allow_targets=[theirs]",
        "model.width=4",
        "data.limit=64",
        "data.batch_size=16",
        "trainer.max_epochs=1",
        "ood=none",
        "logger=none",
        f"paths.outputs={tmp_path}/outputs",
    ]
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('attnlab.train', run_name='__main__')"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, cwd=root)
    assert done.returncode == 0, done.stderr
    result = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())
    assert result["places"] == {"halve@layer1": "after"}
    assert result["config"]["attention"]["halve"]["module"]["divisor"] == 3

    refused = subprocess.run([sys.executable, "-c", code, *words[:3], *words[4:]], capture_output=True, text=True, timeout=120, cwd=root)
    assert refused.returncode == 1 and "allow_targets=[theirs] permits it" in refused.stderr
