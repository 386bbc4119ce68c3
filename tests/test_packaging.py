"""The three source folders have one import name: in a wheel, in an editable install and in a bare checkout.

Each is imported from inside the repository, from outside, and from a folder with its own ``callbacks`` package.
``imports.py`` loads torch and other libraries once and forks for each case. It runs without ``site``, so that an
installed copy of this package doesn't hide the one under test.
"""

import json
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
SOURCES = {"ssl_modules": "ssl_modules", "callbacks": "ssl_modules/callbacks", "datamodules": "ssl_modules/datamodules"}
INSTALLS = ["wheel", "editable", "checkout"]
PLACES = ["inside", "outside", "with_own_callbacks"]
pytestmark = pytest.mark.slow  # builds two installs and imports each three times
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


def python(*arguments, **options):
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """Copy the repository, so that building neither leaves files in it nor uses those of an earlier build."""
    copy = tmp_path_factory.mktemp("packaging") / "repository"
    for folder in SOURCES:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / file, copy)
    return copy


@pytest.fixture(scope="session")
def installed(repository):
    """Unpack the wheel and the editable install; return their folders."""
    folders = {}
    for install in ("wheel", "editable"):
        folders[install] = repository.parent / install
        folders[install].mkdir()
        python("-c", BUILD.format(install), repository.parent, cwd=repository)
        (wheel,) = repository.parent.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folders[install])
        wheel.unlink()
    return folders


@pytest.fixture(scope="session")
def outcomes(repository, installed):
    """Return what ``imports.py`` found in each case."""
    own_callbacks = repository.parent / "with_own_callbacks"
    (own_callbacks / "callbacks").mkdir(parents=True)
    (own_callbacks / "callbacks" / "__init__.py").write_text("mine = True\n")
    outside = repository.parent / "outside"
    outside.mkdir()
    places = dict(zip(PLACES, (repository, outside, own_callbacks), strict=True))
    paths = installed | {"checkout": repository}
    cases = [
        {"install": install, "path": str(path), "place": place, "folder": str(places[place])}
        for install, path in paths.items()
        for place in PLACES
    ]
    third_party = sysconfig.get_path("purelib")
    output = python("-S", Path(__file__).with_name("imports.py"), third_party, json.dumps(cases))
    return {(found["install"], found["place"]): found for found in map(json.loads, output.splitlines())}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("install", INSTALLS)
def test_imports(outcomes, repository, installed, install, place):
    found = outcomes[install, place]
    assert found["error"] is None
    # Inside the repository Python finds its sources first, as they are in the current folder.
    packed = install == "wheel" and place != "inside"
    root = installed["wheel"] if packed else repository
    for source, target in SOURCES.items():
        name = target.replace("/", ".")
        assert Path(found["files"][name]) == root / (target if packed else source) / "__init__.py"
    assert found["one_module"]


@pytest.mark.parametrize("install", INSTALLS)
def test_own_callbacks_package_stays_importable(outcomes, install):
    assert outcomes[install, "with_own_callbacks"]["bare"]["callbacks"] == "mine"


@pytest.mark.parametrize("name", ["callbacks", "datamodules"])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_bare_name_in_a_checkout_says_which_import_is_meant(outcomes, place, name):
    assert f"import ssl_modules.{name}" in outcomes["checkout", place]["bare"][name]


def test_installed_there_is_no_bare_name(outcomes):
    for install in ("wheel", "editable"):
        assert outcomes[install, "outside"]["bare"] == {
            name: f"No module named '{name}'" for name in ("callbacks", "datamodules")
        }


def test_every_module_of_the_wheel_imports(outcomes, installed):
    found = outcomes["wheel", "outside"]["modules"]
    files = (installed["wheel"] / "ssl_modules").rglob("*.py")
    names = {".".join(file.relative_to(installed["wheel"]).with_suffix("").parts) for file in files}
    expected = {name.removesuffix(".__init__") for name in names} - {"ssl_modules.__main__"}
    assert set(found) == expected
    assert all(Path(file).is_relative_to(installed["wheel"]) for file in found.values())


def test_wheel_holds_the_three_folders_and_nothing_else(installed):
    wheel = installed["wheel"]
    files = (file for file in wheel.rglob("*") if file.is_file() and file.suffix != ".pyc")  # imports write .pyc files
    packed = {str(file.relative_to(wheel)) for file in files}
    sources = {
        f"{target}/{file.relative_to(REPOSITORY / source)}"
        for source, target in SOURCES.items()
        for file in (REPOSITORY / source).rglob("*.py")
    }
    metadata = {name for name in packed if ".dist-info/" in name}
    assert packed - metadata == sources | {"ssl_modules/py.typed"}
    assert {name.partition("/")[2] for name in metadata} >= {"METADATA", "entry_points.txt", "licenses/LICENSE"}
    (entry_points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "ssl-modules = ssl_modules.cli:main" in entry_points.read_text()


def test_constraints_are_names_and_versions_that_fit_every_dependency():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][a-z0-9.]*", pin) for pin in pins)
    pinned = dict(pin.split("==") for pin in pins)
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project, extras = settings["project"], settings["project"]["optional-dependencies"]
    groups = settings["dependency-groups"]
    wanted = [
        *project["dependencies"],
        *extras["viz"],
        *extras["video"],
        *extras["bench"],
        *extras["stream"],
        *groups["dev"],
        *groups["docs"],
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_the_callbacks_load_no_method():
    script = (
        "import sys, lightning.pytorch\nbefore = set(sys.modules)\nimport ssl_modules.callbacks\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = set(python("-c", script, cwd=REPOSITORY).split())
    assert "ssl_modules.callbacks.knn" in loaded
    parts = ("module", "methods", "augmentations", "encoders", "extractions", "losses", "objective", "datamodules")
    assert not loaded & {f"ssl_modules.{part}" for part in parts}
    assert not {name.partition(".")[0] for name in loaded} & {"timm", "matplotlib", "jsonargparse"}


def test_the_version_is_the_same_everywhere():
    version = runpy.run_path(str(REPOSITORY / "ssl_modules" / "version.py"))["__version__"]
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == version
    assert f"\n## {version}\n" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_checks_before_a_commit_have_the_pinned_versions():
    pinned = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line
    )
    repositories = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {re.search("ruff|codespell", given["repo"])[0]: given["rev"] for given in repositories}
    assert revisions == {name: f"v{pinned[name]}" for name in ("ruff", "codespell")}
