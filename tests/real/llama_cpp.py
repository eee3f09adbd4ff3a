"""llama.cpp's own server as a process: ``python -m tests.real.llama_cpp --model M --port P``.

With ``--sleep-idle-seconds N`` it frees its model by itself, and loads it for the next request.
The other options are llama-server's, too: ``--slot-save-path D``, ``--embedding``, ``--api-key K``.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import xllamacpp


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sleep-idle-seconds", type=int, default=-1)
    parser.add_argument("--slot-save-path", default="")
    parser.add_argument("--embedding", action="store_true")
    parser.add_argument("--api-key", action="append", default=[])
    parser.add_argument("--mmap", action="store_true", help="llama-server's usual way to load")
    options = parser.parse_args(arguments)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # this also blocks them in llama.cpp's threads
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.hostnames, parameters.port = ["127.0.0.1"], options.port
    parameters.n_ctx, parameters.n_parallel = 2048, 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
    parameters.sleep_idle_seconds = options.sleep_idle_seconds
    parameters.sse_ping_interval = 1
    parameters.slot_save_path = options.slot_save_path and options.slot_save_path + "/"
    parameters.embedding, parameters.api_keys = options.embedding, options.api_key
    if not options.mmap:
        parameters.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    server = xllamacpp.Server(parameters)
    signal.sigwait(ends)
    del server


if __name__ == "__main__":
    main(sys.argv[1:])
