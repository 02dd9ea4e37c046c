"""What may be installed: the bounds of pyproject.toml hold here and shut out every version of known_bad.txt."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for group in PROJECT["optional-dependencies"].values() for text in group]
# packages whose next versions are known to break us or to change numbers: others are held by the tests alone
UPPER = ("torch", "torchvision", "hydra-core", "omegaconf", "pytorch-lightning", "timm", "pytorch-ood")


def known_bad() -> list[tuple[str, SpecifierSet]]:
    """A package and one specifier of versions that are bad."""
    found = []
    for line in Path(__file__).with_name("known_bad.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, specifiers, why = line.split(maxsplit=2)
            assert why, line
            found += [(canonicalize_name(name), SpecifierSet(specifier)) for specifier in specifiers.split(",")]
    return found


def just_below(version: Version) -> Version:
    """14.0.1 -> 14.0.0.99, 10.3 -> 10.2.99: a later one that is earlier."""
    release = list(version.release)
    while not release[-1]:
        release.pop()
    return Version(".".join(map(str, [*release[:-1], release[-1] - 1, 99])))


@pytest.mark.parametrize("requirement", [*REQUIRED, *EXTRAS], ids=str)
def test_what_is_installed_is_within_the_bounds(requirement: Requirement) -> None:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        assert requirement in EXTRAS, "a dependency is missing"
        pytest.skip("an extra that is not installed")
    assert requirement.specifier.contains(version, prereleases=True), f"{requirement.name} {version}"


def test_every_bound_has_a_lower_end_and_those_that_matter_an_upper_one() -> None:
    for requirement in [*REQUIRED, *EXTRAS]:
        assert {one.operator for one in requirement.specifier} & {">=", "=="}, requirement
    upper = {one.name for one in REQUIRED if {one.operator for one in one.specifier} & {"<", "=="}}
    assert upper == set(UPPER)


@pytest.mark.parametrize(("name", "specifier"), known_bad(), ids=str)
def test_a_version_known_to_be_bad_is_neither_installed_nor_allowed(name: str, specifier: SpecifierSet) -> None:
    try:
        assert not specifier.contains(importlib.metadata.version(name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        assert not any(canonicalize_name(one.name) == name for one in REQUIRED)
    for requirement in [*REQUIRED, *EXTRAS]:
        if canonicalize_name(requirement.name) == name:
            named = [Version(one.version) for one in specifier]
            bad = [version for one in named for version in (one, just_below(one)) if specifier.contains(version)]
            assert bad and not any(requirement.specifier.contains(version) for version in bad), requirement
