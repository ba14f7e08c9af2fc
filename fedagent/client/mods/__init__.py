"""Flower mods that a rule may need on its clients; `ClientSpec.mods` names them. And `Faults`."""

from fedagent.client.mods.area import area_difference_mod
from fedagent.client.mods.codec import codec_mod
from fedagent.client.mods.continue_locally import continue_locally_mod
from fedagent.client.mods.faults import Faults, Kind
from fedagent.client.mods.partition_id import partition_id_mod
from fedagent.client.mods.secure import secure_mod
from fedagent.client.mods.sparse_rows import sparse_rows_mod

__all__ = [
    "Faults",
    "Kind",
    "area_difference_mod",
    "codec_mod",
    "continue_locally_mod",
    "partition_id_mod",
    "secure_mod",
    "sparse_rows_mod",
]
