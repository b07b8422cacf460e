"""Commands in several processes that share each batch."""

import os
import signal
import socket
import subprocess
import sys
from importlib import import_module


def torchrun(*words, count=2, program=("-m", "scanseg", "train"), **options):
    """Start `scanseg train WORDS...`, or another program, in several processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    return _start([*launcher, f"--master-port={_free_port()}", *program, *words], **options)


def forked(*words, count=2, **options):
    """Start `scanseg train WORDS...` in processes that one process forks after its imports.

    The processes are those of `torchrun`, which imports PyTorch in each of them and in its own.
    """
    if not hasattr(os, "fork"):
        return torchrun(*words, count=count, **options)
    return _start([sys.executable, __file__, count, _free_port(), "train", *words], **options)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(command, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def _fork_and_wait(count, port, words):
    """Run a command in each process, and return 0 if all of them return 0."""
    # The optimizer imports the compiler.
    for name in ("torch._dynamo", "scanseg.cli", "scanseg.training", "scanseg.runtime.collectives"):
        import_module(name)
    processes = []
    for rank in range(count):
        process = os.fork()
        if process == 0:
            _be_rank(rank, count, port)
            sys.argv = ["scanseg", *words]
            return import_module("scanseg.__main__").main()
        processes.append(process)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    return int(any(codes))


def _be_rank(rank, count, port):
    """Set the variables that `torchrun` sets."""
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"})
    os.environ.update(dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)))
    os.environ.update(dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(count)))


if __name__ == "__main__":
    sys.exit(_fork_and_wait(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
