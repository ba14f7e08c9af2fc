"""The only place that touches private names of Flower; `uses` lists them, each with its reason.

Importing it says, in one line of the log, what an unknown version of Flower lacks.
"""

from fedagent._flower.client_task import (
    UNANSWERED,
    AppBundle,
    import_client_runtime,
    load_installed_app,
    run_client_app,
)
from fedagent._flower.legacy import legacy_server_reproducible
from fedagent._flower.messages import (
    DRIVER_NODE_ID,
    ErrorCode,
    Run,
    aggregate_metricrecords,
    empty_run,
    failed_reply,
    identify_process,
    is_from_node,
    pulls_over_network,
    reply_from,
    set_message_id,
    with_content,
)
from fedagent._flower.private_use import (
    CHECKED_VERSIONS,
    PrivateUse,
    announce,
    installed_version,
    is_checked,
    remedy,
)
from fedagent._flower.records import array_of, entries_of, quick_records, record_of
from fedagent._flower.run_config import fused_run_config
from fedagent._flower.supernode import (
    Supervision,
    end_process,
    expire_task,
    is_for_client_app,
    launch_accepted,
    launch_cold,
    run_superexec,
    run_supernode,
    supernode_arguments,
    why_no_warm_executor,
)
from fedagent._flower.uses import RUN_USES, USES

__all__ = [
    "AppBundle",
    "CHECKED_VERSIONS",
    "DRIVER_NODE_ID",
    "ErrorCode",
    "PrivateUse",
    "RUN_USES",
    "Run",
    "Supervision",
    "UNANSWERED",
    "USES",
    "aggregate_metricrecords",
    "array_of",
    "empty_run",
    "end_process",
    "entries_of",
    "expire_task",
    "failed_reply",
    "fused_run_config",
    "identify_process",
    "is_from_node",
    "import_client_runtime",
    "installed_version",
    "is_checked",
    "is_for_client_app",
    "launch_accepted",
    "launch_cold",
    "legacy_server_reproducible",
    "load_installed_app",
    "pulls_over_network",
    "quick_records",
    "record_of",
    "remedy",
    "reply_from",
    "run_client_app",
    "run_superexec",
    "run_supernode",
    "set_message_id",
    "supernode_arguments",
    "why_no_warm_executor",
    "with_content",
]

announce(RUN_USES)
