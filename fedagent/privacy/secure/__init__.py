"""Secure aggregation of buffers: the proxy learns the sum of K updates, and none of them."""

from fedagent.privacy.secure.fixed_point import FixedPoint
from fedagent.privacy.secure.gathering import Gathering, SumEnd
from fedagent.privacy.secure.member import Member, UnsafeQuestionError
from fedagent.privacy.secure.rule import SecureSums
from fedagent.privacy.secure.stages import Question, Stage, answer_of

__all__ = [
    "FixedPoint",
    "Gathering",
    "Member",
    "Question",
    "SecureSums",
    "Stage",
    "SumEnd",
    "UnsafeQuestionError",
    "answer_of",
]
