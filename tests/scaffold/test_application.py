import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedagent.config import choices
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.scaffold import create, reference

ROOT = Path(__file__).parents[2]


def run(folder, *arguments):
    environment = {
        **os.environ,
        "FLWR_TELEMETRY_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
        "MYPYPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(folder, *arguments):
    return run(folder, "-c", "from fedagent.cli import main; main()", *arguments)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project started in an empty folder, as a user of the wheel would."""
    folder = tmp_path_factory.mktemp("mine")
    return folder, command(folder, "new", "sleep_stages")


def test_the_next_steps_are_printed(project):
    folder, output = project
    assert "python -m pytest tests/clients/sleep_stages" in output
    assert "fedagent run app=sleep_stages" in output
    for line in output.splitlines():
        if line.startswith("wrote clients/"):
            assert (folder / line.removeprefix("wrote ")).is_file()


def test_a_second_application_joins_the_first(project):
    folder, _ = project
    before = contents(folder)
    written = create("second", folder)
    assert {path.as_posix() for path in written} == {
        "clients/second/__init__.py",
        "clients/second/data.py",
        "clients/second/model.py",
        "clients/second/task.py",
        "conf/app/second.yaml",
        "tests/clients/second/__init__.py",
        "tests/clients/second/test_second_task.py",
    }
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert choices(folder / "conf")["app"] == ["second", "sleep_stages"]


def test_what_is_generated_satisfies_our_own_linters_and_types(tmp_path):
    create("sleep_stages", tmp_path)
    ours = ["--config", str(ROOT / "pyproject.toml")]
    ours += ["--config", 'lint.isort.known-first-party = ["fedagent", "clients"]']
    run(tmp_path, "-m", "ruff", "check", *ours, ".")
    run(tmp_path, "-m", "ruff", "format", *ours, "--check", ".")
    cache = str(ROOT / ".mypy_cache")  # warm after `make check`: minutes become seconds
    run(tmp_path, "-m", "mypy", "--strict", "--cache-dir", cache, "-p", "clients.sleep_stages")


def test_a_new_project_is_a_flower_app_with_every_choice_but_ours(tmp_path):
    create("mine", tmp_path)
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    new = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    assert new["tool"]["flwr"]["app"]["components"] == ours["components"]
    assert new["tool"]["flwr"]["app"]["config"] == {"overrides": ""}
    assert new["project"]["name"] == "mine"
    ours = ("app", "experiment", "tuned")
    expected = {g: c for g, c in choices(ROOT / "conf").items() if g not in ours}
    assert choices(tmp_path / "conf") == {**expected, "app": ["mine"]}


def test_in_the_repository_only_the_application_is_added(tmp_path):
    for name in ("pyproject.toml", "conf/config.yaml", "clients/app.py", "tests/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("kept")
    written = {path.as_posix() for path in create("mine", tmp_path)}
    assert written - {"tests/clients/__init__.py", ".gitignore"} == {
        "clients/mine/__init__.py",
        "clients/mine/data.py",
        "clients/mine/model.py",
        "clients/mine/task.py",
        "conf/app/mine.yaml",
        "tests/clients/mine/__init__.py",
        "tests/clients/mine/test_mine_task.py",
    }
    assert (tmp_path / "conf/config.yaml").read_text() == "kept"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mine",
        "1st",
        "my-app",
        "my app",
        "../up",
        "class",
        "app",
        "deploy",
        "references",
        "é",
        "a/b",
    ],
)
def test_a_name_that_cannot_be_a_package_is_refused(name, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be an application's name"):
        create(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_taken_name_is_refused(tmp_path):
    create("mine", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigurationError, match="'mine' is taken by clients/mine"):
        create("mine", tmp_path)
    (tmp_path / "conf/app/other.yaml").write_text("")
    with pytest.raises(ConfigurationError, match=r"'other' is taken by conf/app/other\.yaml"):
        create("other", tmp_path)
    assert contents(tmp_path) == {**before, "conf/app/other.yaml": b""}


def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path):
    create("mine", tmp_path)
    (tmp_path / "tests/clients/second").mkdir()
    (tmp_path / "tests/clients/second/test_second_task.py").write_text("of somebody")
    before = contents(tmp_path)
    with pytest.raises(ConfigurationError, match=r"test_second_task\.py would be overwritten"):
        create("second", tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigurationError, match=r"thesis\.tex.*fedagent new mine --folder mine"):
        create("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_fresh_repository_counts_as_empty_and_keeps_its_files(tmp_path):
    (tmp_path / ".git").mkdir()
    for name in ("README.md", "LICENSE", ".gitignore"):
        (tmp_path / name).write_text("mine")
    create("mine", tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "mine"
    assert (tmp_path / "server/app.py").is_file()


def test_a_project_of_another_layout_is_refused_with_what_it_lacks(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    with pytest.raises(ConfigurationError, match=r"without conf/config\.yaml and clients/app\.py"):
        create("mine", tmp_path)


def test_the_wheel_carries_the_files_that_a_project_starts_with():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = wheel["targets"]["wheel"]["force-include"]
    assert wheel["targets"]["wheel"]["packages"] == ["fedagent"]
    for name in reference.files_for("mine"):
        source = "conf" if name.startswith("conf/") else name
        assert included[source] == f"fedagent/reference/{source}"


def test_files_of_the_wheel_are_taken_before_those_of_a_repository(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "fedagent"
    for name in (*reference._APPS, "conf/config.yaml"):
        (package / "reference" / name).parent.mkdir(parents=True, exist_ok=True)
        (package / "reference" / name).write_text(f"defaults:\n  - app: vision\n# {name}\n")
    monkeypatch.setattr(reference, "__file__", str(package / "scaffold" / "reference.py"))
    files = reference.files_for("mine")
    assert files["conf/config.yaml"] == "defaults:\n  - app: mine\n# conf/config.yaml\n"
    (package / "reference" / "server" / "app.py").unlink()
    with pytest.raises(DataUnavailableError, match="install fedagent again"):
        reference.files_for("mine")
