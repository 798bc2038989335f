# SPDX-License-Identifier: Apache-2.0
"""Run the bundle as a user does, ``python -m monai.bundle run ...`` from its root, in a process of its own.

``run`` starts a new interpreter. ``run_warm`` executes the same module with the same arguments in a fork of a process
that has imported everything once, which spares the seconds of imports; the rest is the same.
"""

import contextlib
import multiprocessing
import os
import re
import runpy
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from monai.bundle import ConfigParser

from scripts.networks import train_only

ROOT = Path(__file__).parents[2]
TRAIN = "configs/train.yaml"
EVALUATE = ["configs/train.yaml", "configs/evaluate.yaml"]
INFERENCE = "configs/inference.yaml"
SMALL = {"image_size": 64, "batch_size": 2, "max_epochs": 1, "num_workers": 0}  # of a training run on tiny pictures
ENVIRONMENT = {  # the same numbers on every machine
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
TIMEOUT = 300

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["monai.bundle", "monai.engines", "monai.losses", "torch.utils.tensorboard", "itk", "scripts"]
)


@dataclass
class Result:
    """What a command left: exit status, standard output with the log, standard error."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines that speak to the user; of several processes torch says before each which one it is of."""
        lines = [re.sub(r"^\[rank\d+\]: ", "", line) for line in self.err.splitlines()]
        return [line for line in lines if line.startswith("error:")]


def arguments(run_id, config, **settings):
    """Give the command's arguments; a setting's name may hold ``#`` through ``**{"train#x": 1}``."""
    given = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["run", *([run_id] if run_id else []), "--config_file", str(config), *given]


def network_of(*files):
    """Build the network that config files name, as small as a run makes it, with the same random weights each time."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in files])
    parser["image_size"], parser["pretrained"] = SMALL["image_size"], "none"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train_only(parser.get_parsed_content("network_def"), parser.get_parsed_content("trainable"))


def places(folder):
    """Where a run writes, all of it in one folder."""
    return {"ckpt_dir": folder / "models", "output_dir": folder / "eval", "cache_dir": folder / "cache"}


def start(run_id, config, out, **settings):
    """Start a new interpreter that writes its output and errors to a file."""
    command = [sys.executable, "-m", "monai.bundle", *arguments(run_id, config, **settings)]
    with open(out, "w") as file:
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=file, stderr=file)


def run(run_id, config, **settings):
    """Run a command in a new interpreter."""
    command = [sys.executable, "-m", "monai.bundle", *arguments(run_id, config, **settings)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=TIMEOUT
    )
    return Result(done.returncode, done.stdout, done.stderr)


def run_warm(run_id, config, **settings):
    """Run a command in a fork of a process that has imported everything."""
    (result,) = run_processes(1, run_id, config, **settings)
    return result


def run_processes(count, run_id, config, meanwhile=None, **settings):
    """Run a command in several processes that work together, as torchrun starts them but without its eye on them.

    ``meanwhile``, if any, is called with the processes and their outputs while they run.
    """
    with tempfile.TemporaryDirectory() as folder:
        outs = [(Path(folder) / f"out_{rank}", Path(folder) / f"err_{rank}") for rank in range(count)]
        argv, port = arguments(run_id, config, **settings), str(_free_port())
        processes = []
        for rank, files in enumerate(outs):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            environment = {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if count > 1 else {}
            processes.append(FORKS.Process(target=_main, args=(argv, *map(str, files), environment)))
            with mock.patch.dict(os.environ, ENVIRONMENT, PYTHONPATH=""):  # the first starts the process that forks
                processes[-1].start()
        if meanwhile:
            meanwhile(processes, [out for out, _ in outs])
        for process in processes:
            process.join(TIMEOUT)
            if process.exitcode is None:
                process.kill()
                process.join()
        return [Result(p.exitcode, out.read_text(), err.read_text()) for p, (out, err) in zip(processes, outs)]


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _main(argv, out, err, environment):
    """Be ``python -m monai.bundle`` in a process that has just been forked."""
    os.environ.update(environment)
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(ROOT)
    sys.argv = ["monai.bundle", *argv]
    with contextlib.suppress(ValueError):
        sys.path.remove(str(ROOT))
    sys.path.insert(0, str(ROOT))
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
