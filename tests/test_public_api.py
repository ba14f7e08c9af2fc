import inspect
import pkgutil
from importlib import import_module
from typing import Any, get_origin

import pytest

import fedagent

MODULES = [
    "fedagent",
    *(
        m.name
        for m in pkgutil.walk_packages(fedagent.__path__, "fedagent.")
        if not m.name.split(".")[-1].startswith("_")
    ),
]
PACKAGES = [name for name in MODULES if hasattr(import_module(name), "__path__")]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_complete(name):
    package = import_module(name)
    exported = getattr(package, "__all__", [])
    assert list(exported) == sorted(exported)
    assert all(hasattr(package, attribute) for attribute in exported)
    public = {
        n
        for n, v in vars(package).items()
        if not n.startswith("_")
        and not inspect.ismodule(v)
        and getattr(v, "__module__", "").startswith("fedagent")
    }
    aliases = {n for n in exported if _is_alias(getattr(package, n))}
    assert public == set(exported) - aliases


def _is_alias(value):
    """A name for a type that Python has made: it does not know where it belongs."""
    return value is Any or get_origin(value) is not None


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name):
    module = import_module(name)
    assert module.__doc__
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{attribute} has no docstring"
