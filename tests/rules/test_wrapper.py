"""A wrapper is the rule inside it, in everything that a rule can be asked."""

import inspect
from unittest.mock import Mock, PropertyMock

import pytest

from fedagent.rules import FedBuff, Periodic, Rule, RuleWrapper

PUBLIC = sorted(name for name in dir(Rule) if not name.startswith("_"))
CALLABLE = [name for name in PUBLIC if inspect.isfunction(getattr(Rule, name))]
METHODS = [name for name in CALLABLE if name != "remember"]
VALUES = [name for name in PUBLIC if name not in CALLABLE]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_forwarded_with_its_arguments_and_its_answer(name):
    inner, parameters = Mock(spec=Rule), inspect.signature(getattr(Rule, name)).parameters
    arguments = [object() for _ in list(parameters)[1:]]
    getattr(inner, name).return_value = answer = object()

    said = getattr(RuleWrapper(inner), name)(*arguments)

    getattr(inner, name).assert_called_once_with(*arguments)
    assert said is answer or inspect.signature(getattr(Rule, name)).return_annotation is None


def test_what_a_wrapper_remembers_is_its_own_and_the_inner_rule_s():
    inner = Mock(spec=Rule)
    inner.state_dict.side_effect = [{"at": "first"}, {"at": "last"}]
    restore = RuleWrapper(inner).remember()
    restore()
    told = [str(call) for call in inner.mock_calls if str(call) != "call.state_dict()"]
    assert told == [
        "call.remember()",
        "call.load_state_dict({'at': 'first'})",  # with the wrapper's own
        "call.load_state_dict({'at': 'last'})",  # and it decides itself what it takes back
        "call.remember()()",
    ]


@pytest.mark.parametrize("name", VALUES)
def test_every_property_is_asked_each_time(name):
    class Changing(FedBuff):
        pass

    setattr(Changing, name, PropertyMock(side_effect=["once", "twice"]))
    wrapper = RuleWrapper(Changing())
    assert [getattr(wrapper, name), getattr(wrapper, name)] == ["once", "twice"]


def test_nothing_of_a_rule_is_left_to_its_own_answer():
    assert not [name for name in PUBLIC if name not in vars(RuleWrapper)]
    assert {"rejection", "flush", "needs_clock", "pending"} <= set(METHODS) | set(VALUES)


def test_a_wrapper_that_changes_one_thing_forwards_the_rest():
    inner = Mock(spec=Rule, allows_clock=True)
    refusal = inner.rejection.return_value = object()
    assert Periodic(inner, 1.0).rejection(object()) is refusal
