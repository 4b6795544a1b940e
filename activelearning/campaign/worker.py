"""The worker process: makes one oracle and answers one candidate at a time over its standard input and output.

It is started by `activelearning.campaign.isolation` as `python -m activelearning.campaign.worker LIFELINE`, leads a
process group of its own, and ends when its parent does, with all that it has started: the parent's death closes the
pipe LIFELINE, of which the parent alone has the other end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import queue
import signal
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


def die_with(lifeline: int) -> None:
    """Have the kernel kill this process group when the other end of a pipe is closed.

    A thread that waits for the end of a stream does not run while native code holds the interpreter's lock; a signal
    that kills needs no thread. Where the system lacks it (it is Linux's) the waiting thread has to do.
    """
    if not hasattr(fcntl, "F_SETSIG"):
        return
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def main() -> None:
    """Answer until the parent closes the stream."""
    die_with(int(sys.argv[1]))
    # Frames keep the real standard input and output for themselves: what libraries print goes to the log, and a
    # program that an oracle starts can't eat what is meant for us.
    requests = os.fdopen(os.dup(0), "rb")
    frames = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                inbox.put(receive(requests))
            except EOFError:
                # The parent is gone, or wants no more: whatever is being computed, here or below, has no reader.
                with contextlib.suppress(OSError):
                    os.killpg(0, signal.SIGKILL)
                os._exit(0)

    threading.Thread(target=listen, name="activelearning-inbox", daemon=True).start()
    setup = inbox.get()
    sys.path[:] = setup["sys_path"]

    import torch

    torch.set_num_threads(1)
    from activelearning.campaign.answering import ask
    from activelearning.campaign.sections import construct
    from activelearning.errors import MachineError, machine_error

    try:
        oracle = construct(
            "oracles", setup["oracle"], setup["params"], key=setup["key"], folder=setup["folder"]
        )
        oracle.bind(setup["context"])
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        send(frames, {"error": text} if machine_error(error) is None else MachineError(text))
        return
    send(frames, {"ready": True})
    context = setup["context"]
    while True:
        candidate, key = inbox.get()
        try:
            (answer,) = ask(oracle, setup["oracle"], context.property, context.unit, [candidate], [key])
            send(frames, answer)
        except MachineError as error:
            send(frames, error)


if __name__ == "__main__":
    main()
