"""The site is built strictly: no broken link, no page outside the navigation, no name left out."""

import os
import pkgutil
import re
import subprocess
import sys
import zlib
from importlib import import_module
from pathlib import Path

import pytest

import fedagent

ROOT = Path(__file__).parents[2]
PACKAGES = [
    "fedagent",
    *(
        module.name
        for module in pkgutil.walk_packages(fedagent.__path__, "fedagent.")
        if module.ispkg and "._" not in module.name
    ),
]
NAMES = [(p, name) for p in PACKAGES for name in getattr(import_module(p), "__all__", [])]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def entries(site):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_public_name_has_an_entry(package, name, entries):
    value = getattr(import_module(package), name)
    defined = f"{getattr(value, '__module__', '')}.{name}"  # where a module has the same name
    assert {f"{package}.{name}", defined} & entries


def test_a_parameter_is_described_and_not_a_type(site):
    text = re.sub(r"<[^>]+>", "", (site / "reference" / "rules.html").read_text(encoding="utf-8"))
    assert "server_learning_rate: eta &gt; 0; 1 takes the buffer's mean step." in text


def test_nothing_is_fetched_when_it_is_read(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|img|iframe|link)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^>]*",
            page.read_text(encoding="utf-8"),
        )
        assert not fetched, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\([\"']?|@import\s+[\"'])(?:https?:)?//", sheet.read_text())


def test_a_broken_link_fails_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md) [none](#none)")
    validation = re.search(r"^validation:\n(?:  .*\n)+", (ROOT / "mkdocs.yml").read_text(), re.M)[0]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation}")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#none" in done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_beside_docs_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#:]+)[)#]", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / link).is_file(), link
