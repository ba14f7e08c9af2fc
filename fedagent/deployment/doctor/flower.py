"""Checks of what fedagent uses of Flower without a promise; imports Flower."""

from collections.abc import Sequence

from fedagent import _flower
from fedagent.deployment.doctor.finding import Finding


def check_private_names() -> list[Finding]:
    """Check that the installed Flower has the private names that fedagent uses, use by use."""
    return [
        *(_possible(use, _flower.remedy()) for use in _flower.USES),
        _checked(_flower.installed_version(), _flower.CHECKED_VERSIONS, _flower.is_checked()),
    ]


def _possible(use: _flower.PrivateUse, remedy: str) -> Finding:
    name, missing = f"flwr: {use.purpose}", ", ".join(use.missing)
    if use.is_possible:
        return Finding(name, "ok", f"private names found: {len(use.names)}")
    if use.substitute is None:
        return Finding(name, "broken", f"it has no {missing}, and no simulation can begin", remedy)
    return Finding(name, "warning", f"it has no {missing}, so {use.substitute}", remedy)


def _checked(installed: str, versions: Sequence[str], is_checked: bool) -> Finding:
    text = f"fedagent was checked with flwr {' and '.join(versions)}"
    if is_checked:
        return Finding("flwr: checked", "ok", text)
    return Finding(
        "flwr: checked",
        "warning",
        f"{text}, not with {installed}: fedagent node starts ClientApps cold, as Flower does",
        "Nothing, if that is fast enough. To try the warm start, fedagent node --executor=fork; to "
        f"be sure, pip install 'flwr=={versions[-1]}'.",
    )
