"""A ServerApp that sends a misbehaving job, then an honest one, and notes what came of both."""

import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    """Go through the deeds, a line of JSON for each."""
    config = context.run_config
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.1)

    def answer(deed, number):
        content = RecordDict({"config": ConfigRecord({"deed": deed, "number": number})})
        [message_id] = grid.push_messages([Message(content, nodes[0], "train")])
        begun_s = time.monotonic()
        while (lasted_s := time.monotonic() - begun_s) < config["patience-s"]:
            for reply in grid.pull_messages([message_id]):
                if reply.has_error():
                    words = {"code": reply.error.code, "reason": reply.error.reason}
                else:
                    words = {"square": reply.content["metrics"]["square"]}
                return {**words, "seconds": lasted_s}
            time.sleep(0.02)
        return {"seconds": lasted_s}

    answer("", 0)  # after which the app is loaded where the node's jobs come from
    for number, deed in enumerate(config["deeds"].split(), start=1):
        done = {"deed": deed, "number": number, "itself": answer(deed, number)}
        done["next"] = answer("", number)
        with (Path(config["folder"]) / "answers.jsonl").open("a") as file:
            file.write(json.dumps(done) + "\n")
