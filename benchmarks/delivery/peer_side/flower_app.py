"""Flower's side: a server app that sends the array to every node in a message, and a client app that answers it."""

from __future__ import annotations

import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from benchmarks.delivery.peer_side.turns import arrived, blob, turns

client = ClientApp()
server = ServerApp()


@client.query()  # type: ignore[untyped-decorator]  # installed for the peers only
def take(message: Message, context: Context) -> Message:
    """On a client: verify the array, and answer with nothing."""
    [array] = message.content["array"].to_numpy_ndarrays()
    arrived(context.node_id, array.data, message.content["config"]["sha256"])
    return Message(RecordDict(), reply_to=message)


@server.main()  # type: ignore[untyped-decorator]  # installed for the peers only
def serve(grid: Grid, context: Context) -> None:
    """On the server: send to all nodes at once, turn by turn."""
    while len(nodes := list(grid.get_node_ids())) < int(context.run_config["clients"]):
        time.sleep(0.2)
    for seed, begin in turns():
        data, sha256 = blob(seed)
        array = np.frombuffer(data, np.float32)
        begin()
        content = RecordDict({"array": ArrayRecord([array]), "config": ConfigRecord({"sha256": sha256})})
        grid.send_and_receive([Message(content, node, "query") for node in nodes], timeout=180)
