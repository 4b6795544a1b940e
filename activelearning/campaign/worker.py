"""The worker process: makes one oracle and answers one candidate at a time over its standard input and output.

It is started by `activelearning.campaign.isolation` as `python -m activelearning.campaign.worker`, and ends when its
parent does: the parent's death closes standard input.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import sys
import threading
from typing import Any, BinaryIO

HEADER = struct.Struct("!Q")


def send(stream: BinaryIO, value: Any) -> None:
    """Write one frame: its length, then the pickled value."""
    data = pickle.dumps(value)
    stream.write(HEADER.pack(len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one frame.

    Raises:
        EOFError: the other side is gone.
    """
    head = _exactly(stream, HEADER.size)
    return pickle.loads(_exactly(stream, HEADER.unpack(head)[0]))


def _exactly(stream: BinaryIO, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        chunk = stream.read(n - len(data))
        if not chunk:
            raise EOFError("the stream ended")
        data += chunk
    return bytes(data)


def main() -> None:
    """Answer until the parent closes the stream."""
    import signal

    # Ctrl-C goes to the whole process group; whether to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Frames keep the real standard output for themselves; what libraries print goes to the log.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                inbox.put(receive(sys.stdin.buffer))
            except EOFError:
                os._exit(0)  # the parent is gone, or wants no more: whatever is being computed has no reader

    threading.Thread(target=listen, name="activelearning-inbox", daemon=True).start()
    setup = inbox.get()
    sys.path[:] = setup["sys_path"]

    import torch

    torch.set_num_threads(1)
    from activelearning.campaign.answering import ask
    from activelearning.campaign.sections import construct

    try:
        oracle = construct(
            "oracles", setup["oracle"], setup["params"], key=setup["key"], folder=setup["folder"]
        )
        oracle.bind(setup["context"])
    except Exception as error:
        send(frames, {"error": f"{type(error).__name__}: {error}"})
        return
    send(frames, {"ready": True})
    context = setup["context"]
    while True:
        candidate, key = inbox.get()
        (measurement,) = ask(oracle, setup["oracle"], context.property, context.unit, [candidate], [key])
        send(frames, measurement)


if __name__ == "__main__":
    main()
