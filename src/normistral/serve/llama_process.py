"""llama.cpp's own server in a process of its own: `python -m normistral.serve.llama_process SETTINGS`.

It listens on a Unix socket inside a folder that only this user can open, so that no port of the machine is
taken and nobody else can reach it. It ends when its standard input closes: with the process that started it,
however that one ends. Nothing heavy is imported here, so that it takes the model's memory and little more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

READY = "ready"


def main(settings: dict[str, Any]) -> None:
    """Open the model, say `ready`, and serve until standard input closes.

    Args:
        settings: `model`, `socket`, `context`, `parallel` and `threads`.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["context"] * settings["parallel"]
    params.fit_params = False
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http = settings["parallel"] + 8
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.enable_chat_template = False
    params.warmup = False
    params.cache_ram_mib = 0
    params.verbosity = 1
    parent = os.getppid()
    try:
        server = xllamacpp.Server(params)
    except Exception as error:
        sys.exit(str(error))
    print(READY, server.listening_address, flush=True)
    end = threading.Event()
    threading.Thread(target=_wait_for_parent, args=(end, parent), daemon=True).start()
    end.wait()
    os._exit(0)  # the server's own end would wait for requests


def _wait_for_parent(end: threading.Event, parent: int) -> None:
    while os.getppid() == parent and sys.stdin.buffer.read(1):
        pass
    end.set()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
