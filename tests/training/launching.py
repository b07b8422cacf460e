"""Commands in several processes that share each batch."""

import os
import socket
import subprocess
import sys


def torchrun(*words, count=2, program=("-m", "scanseg", "train"), **options):
    """Start `scanseg train WORDS...`, or another program, in several processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command = [*launcher, f"--master-port={port}", *map(str, program), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )
