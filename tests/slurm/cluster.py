"""A temporary SLURM cluster on this machine: munge, one controller, several nodes on loopback, fake GPUs.

It needs root and Debian's packages slurm-wlm and munge. Fake GPUs are character devices, so that jobs queue for them
and CUDA_VISIBLE_DEVICES is set as on a real node. All files are in one folder; `stop` ends every process. Processes
that were not started from here do not see the cluster, so that other tests may run at the same time.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
"""Snakemake's jobs do not inherit SLURM_CONF, so the files must be in SLURM's default folder."""
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol")
PORT = 16817
CPUS, MEMORY_MB = 4, 8000
CLONE_NEWNS = 0x00020000
"""Of Linux's unshare(2); Python has it from 3.12."""
COMMON = """
ClusterName=z1g
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge/socket,cred_expire=30
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=1
SlurmdTimeout=600
SlurmctldTimeout=600
MessageTimeout=30
TCPTimeout=30
BatchStartTimeout=600
UnkillableStepTimeout=600
KillWait=120
MinJobAge=86400
MpiDefault=none
GresTypes=gpu
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0,bf_interval=5
"""
"""Time limits are far above what two busy cores need: with SLURM's defaults, a daemon that waits for a core for some
seconds is taken for a dead node, a credential expires before its job has started, a job is killed while it writes its
checkpoint, and the record of a finished job is gone before a test looks at it. No test waits for such a limit, except
for requeued jobs, which start again after `cred_expire`.
"""
PARTITIONS = """
PartitionName=day Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=120
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=120
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def unavailable() -> str | None:
    """The reason why no cluster can be started here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)"
    if os.getuid() != 0:
        return "starting SLURM needs root"
    if any((CONFIGURATION / name).exists() for name in ("slurm.conf", "gres.conf")):
        return f"{CONFIGURATION}/slurm.conf exists: this machine belongs to a cluster"
    return None


class Cluster:
    """`nodes` slurmd processes n1, n2, ..., each with 4 CPUs, 8 GB and `gpus` fake GPUs."""

    def __init__(self, root: Path, nodes: int = 2, gpus: int = 2) -> None:
        self.root, self.gpus = root, gpus
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self._munge: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start everything and wait until all nodes are idle."""
        for name in ("state", "munge", "devices", *(f"spool-{node}" for node in self.nodes)):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        hide(CONFIGURATION)
        self._write_configuration()
        self._start_munge()
        self.start_controller()
        for node in self.nodes:
            subprocess.run(["slurmd", "-N", node], check=True)
        self.wait(lambda: self.idle() == len(self.nodes), "nodes are not idle")

    def _write_configuration(self) -> None:
        lines, gres = COMMON.format(root=self.root, host=socket.gethostname().split(".")[0], port=PORT), ""
        for i, node in enumerate(self.nodes):
            for gpu in range(self.gpus):
                os.mknod(self.root / "devices" / f"{node}-{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            lines += (
                f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={PORT + 1 + i} "
                f"CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:toy:{self.gpus} State=UNKNOWN\n"
            )
            gres += f"NodeName={node} Name=gpu Type=toy File={self.root}/devices/{node}-[0-{self.gpus - 1}]\n"
        (CONFIGURATION / "slurm.conf").write_text(lines + PARTITIONS)
        (CONFIGURATION / "gres.conf").write_text(gres)

    def _start_munge(self) -> None:
        folder = self.root / "munge"
        key = folder / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{option}={folder / name}" for option, name in names.items()]
        command = ["munged", "--foreground", "--force", f"--key-file={key}", *files]
        self._munge = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait((folder / "socket").exists, "munge did not start")

    def start_controller(self) -> None:
        """Start slurmctld, initially or after `kill_controller`."""
        subprocess.run(["slurmctld"], check=True)
        self.wait(self._answers, "slurmctld does not answer")

    def _answers(self) -> bool:
        return self._run("scontrol", "ping", check=False).returncode == 0

    def kill_controller(self, job: str) -> None:
        """Kill slurmctld by SIGKILL after it has saved the state of a running job, and wait until it has ended."""
        process = int((self.root / "slurmctld.pid").read_text())
        state = self.root / "state/job_state"
        before = time.time()
        self.control("update", f"jobid={job}", f"timelimit={self.job(job)['TimeLimit']}")
        self.wait(lambda: state.exists() and state.stat().st_mtime > before, "slurmctld does not save the job")
        os.kill(process, signal.SIGKILL)
        self.wait(lambda: _ended(process), "slurmctld does not end")

    def cancel(self) -> None:
        """Cancel all jobs and wait until they have ended."""
        self._run("scancel", "--user=root")
        self.wait(lambda: not self.jobs(), "jobs did not end")

    def heal(self) -> None:
        """Restore the cluster after a test: a controller that answers, no jobs, all nodes idle."""
        if not self._answers():
            self.start_controller()
        self.cancel()
        for node in self.nodes:
            if self._run("sinfo", "-h", "-n", node, "-p", "day", "-o", "%T").stdout.strip(" *\n") != "idle":
                self._run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.wait(lambda: self.idle() == len(self.nodes), "nodes are not idle")

    def stop(self) -> None:
        """Cancel all jobs, end all daemons, and remove the configuration."""
        with contextlib.suppress(subprocess.SubprocessError, TimeoutError):
            self.cancel()
        for file in [*self.root.glob("slurmd-*.pid"), self.root / "slurmctld.pid"]:
            with contextlib.suppress(OSError, ValueError):
                _end(int(file.read_text()))
        if self._munge is not None:
            self._munge.terminate()
            self._munge.wait()
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)

    def idle(self) -> int:
        """Number of idle nodes."""
        return len(self._run("sinfo", "-h", "-N", "-t", "idle", "-p", "day", check=False).stdout.split("\n")) - 1

    def jobs(self) -> list[str]:
        """Ids of the pending, running and completing jobs."""
        return self._run("squeue", "-h", "-o", "%i").stdout.split()

    def job(self, job: str) -> dict[str, str]:
        """SLURM's record of a job, with the names of `scontrol show job`."""
        words = self._run("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def running(self, rule: str) -> str:
        """Id of the only running job of a rule."""
        lines = self._run("squeue", "-h", "-t", "R", "-o", "%i %k").stdout.splitlines()
        (job,) = (line.split()[0] for line in lines if f" rule_{rule}" in line)
        return job

    def control(self, *words: str) -> None:
        """Run `scontrol` with these arguments."""
        self._run("scontrol", *words)

    def wait(self, condition: Callable[[], bool], complaint: str, seconds: float = 1800.0) -> None:
        """Poll until the condition is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(complaint)
            time.sleep(0.2)

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=600)


def hide(folder: Path) -> None:
    """Put an empty folder in the place of this one for this process and those that it starts, if it may mount."""
    folder.mkdir(exist_ok=True)
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        mount = 'mount --make-rprivate / && mount -t tmpfs tmpfs "$0"'
        subprocess.run(["sh", "-c", mount, str(folder)], capture_output=True, check=False)


def _end(process: int) -> None:
    os.kill(process, signal.SIGTERM)
    for _ in range(50):
        if _ended(process):
            return
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)


def _ended(process: int) -> bool:
    """Whether a process has ended, possibly as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
