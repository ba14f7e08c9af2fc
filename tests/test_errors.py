import sys

import pytest

from fedagent.errors import DataUnavailableError, imported, installed

MISSING = "no_such_package"


@pytest.mark.parametrize("find", [imported, installed])
def test_a_missing_package_is_named_with_its_user_and_its_pip_line(find):
    with pytest.raises(DataUnavailableError) as raised:
        find(MISSING, "fedagent[stars]", "The horoscope")
    message = str(raised.value)
    assert message.startswith(f"The horoscope needs {MISSING}, which")
    assert message.endswith('; run: pip install "fedagent[stars]"')


@pytest.mark.parametrize("find", [imported, installed])
def test_what_works_without_the_package_is_named_too(find):
    with pytest.raises(DataUnavailableError, match=r'"stars", or look up: app\.sky=clear$'):
        find(MISSING, "stars", "The horoscope", "look up: app.sky=clear")


def test_a_package_that_is_installed_and_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import the_other_half")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataUnavailableError, match="No module named 'the_other_half'"):
        imported("half_a_package", "stars", "The horoscope")


def test_what_is_there_is_returned():
    assert imported("os.path", "stars", "The horoscope") is sys.modules["os.path"]
    assert installed("pytest", "stars", "The horoscope").version == pytest.__version__
