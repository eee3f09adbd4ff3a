"""A real Slurm on one machine: its controller, and nodes that are namespaces with an address.

It needs root and Debian's packages: slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins,
munge. Each node has one GPU that is only a number. When the block ends, nothing is left.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

NET = "10.77.0"
BRIDGE = "lzbr"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "munged", "ip", "nsenter")
MEMORY = 4000  # MB of each node
SOON = 20.0  # seconds

CONF = """\
ClusterName=lz
SlurmctldHost=ctl({net}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort=17817
SlurmdPort=17818
StateSaveLocation={folder}/ctl
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=20000
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=3
MinJobAge=300
TCPTimeout=2
MessageTimeout=5
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
"""
PARTITIONS = """\
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not_here() -> str:
    """Return why this machine cannot have a cluster; empty if it can."""
    if os.geteuid() != 0:
        return "only root can set up a Slurm with namespaces"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"there is no {', '.join(missing)}" if missing else ""


@attrs.define(eq=False)
class Cluster:
    """A cluster that runs.

    Attributes:
        folder: where its files are.
        nodes: how many it has.
        daemons: its processes, by their names.
    """

    folder: Path
    nodes: int
    daemons: dict[str, subprocess.Popen[bytes]] = attrs.field(factory=dict, init=False)

    @property
    def env(self) -> dict[str, str]:
        """The variables that a program needs to find the cluster."""
        return {"SLURM_CONF": f"{self.folder}/slurm.conf"}

    def run(self, *argv: str, limit: float = 30) -> str:
        """Run one of Slurm's commands; return its output."""
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=limit, env={**os.environ, **self.env}
        )
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """Return the ids of the jobs in these states; by default, of those that wait or run."""
        more = ("-t", ",".join(states)) if states else ()
        return self.run("squeue", "-h", "-o", "%A", *more).split()

    def steps(self) -> list[str]:
        """Return the ids of the steps that run, without the scripts of jobs."""
        found = self.run("squeue", "-h", "-s", "-o", "%i").split()
        return sorted(one for one in found if not one.endswith((".batch", ".extern")))

    def address(self, node: int) -> str:
        """Return the address of a node, counted from 1."""
        return f"{NET}.{10 + node}"

    def pids_on(self, node: int, words: str) -> list[int]:
        """Return the processes on a node whose command has these words."""
        here = os.readlink(f"/proc/{self.daemons[f'slurmd-n{node}'].pid}/ns/net")
        found = []
        for one in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (one / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words in command and os.readlink(one / "ns/net") == here:
                    found.append(int(one.name))
        return sorted(found)

    def signal(self, daemon: str, number: signal.Signals) -> None:
        """Send a signal to one of its daemons."""
        self.daemons[daemon].send_signal(number)

    def restart_node(self, node: int) -> None:
        """Start a node's daemon that was ended."""
        self._start_node(node)

    # Start and end.

    def start(self, grace: int = 0) -> None:
        """Start the cluster; return when all nodes are idle."""
        remove_network()
        self._write(grace)
        self._network()
        self._start("munged", *self._munge())
        until((self.folder / "munge.sock").exists)
        self._start("slurmctld", "unshare", "--uts", "sh", "-c", "hostname ctl; exec slurmctld -Dc")
        for node in range(1, self.nodes + 1):
            self._start_node(node)
        until(lambda: self._idle() == self.nodes)

    def end(self) -> None:
        """End the cluster and everything that it runs."""
        for name, daemon in self.daemons.items():
            if name != "munged":
                daemon.send_signal(signal.SIGCONT)
        with suppress(subprocess.SubprocessError, AssertionError):
            self.run("scancel", "-f", "-u", "root", limit=5)
            until(lambda: not self.jobs("PD", "R", "CG"), 8)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._end_what_is_left()
        remove_network()

    def _idle(self) -> int:
        with suppress(AssertionError):
            return int(self.run("sinfo", "-h", "-t", "idle", "-o", "%D") or 0)
        return 0

    def _end_what_is_left(self) -> None:
        """Kill what still runs on the nodes, for example after a test that failed."""
        for name in _namespaces():
            for pid in subprocess.run(
                ("ip", "netns", "pids", name), capture_output=True, text=True, check=False
            ).stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def _write(self, grace: int) -> None:
        folder = self.folder
        for name in ("ctl", "spool"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        device = folder / "nvidia0"
        if not device.exists():
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        numbers = range(1, self.nodes + 1)
        nodes = [
            f"NodeName=n{one} NodeAddr={self.address(one)} CPUs=4 RealMemory={MEMORY} "
            "Gres=gpu:1 State=UNKNOWN"
            for one in numbers
        ]
        text = CONF.format(net=NET, folder=folder) + "\n".join(nodes) + "\n"
        (folder / "slurm.conf").write_text(text + PARTITIONS.format(grace=grace))
        gres = [f"NodeName=n{one} Name=gpu File={device}" for one in numbers]
        (folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)

    def _munge(self) -> list[str]:
        folder = self.folder
        return [
            *("munged", "--foreground", "--force", f"--key-file={folder}/munge.key"),
            *(f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"),
        ]

    def _network(self) -> None:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for node in range(1, self.nodes + 1):
            name, veth = f"lzn{node}", f"lzv{node}"
            _ip("netns", "add", name)
            _ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", veth, "master", BRIDGE, "up")
            _ip("-n", name, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def _start_node(self, node: int) -> None:
        script = f"hostname n{node}; exec slurmd -D -N n{node}"
        # `ip netns exec` would mount a /sys without the cgroups that slurmd looks for.
        enter = f"nsenter --net=/run/netns/lzn{node} unshare --uts sh -c"
        self._start(f"slurmd-n{node}", *enter.split(), script)

    def _start(self, name: str, *argv: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.env},
                start_new_session=True,
            )


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True)


def _namespaces() -> list[str]:
    listed = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in listed.stdout.splitlines() if line]
    return [name for name in names if name.startswith("lzn")]


def remove_network() -> None:
    """Remove the bridge and the namespaces, also those of an earlier run that was killed."""
    for name in _namespaces():
        _ip("netns", "del", name)
    links = Path("/sys/class/net").glob("lzv*")
    for link in [*(one.name for one in links), BRIDGE]:
        subprocess.run(("ip", "link", "del", link), check=False, capture_output=True)


def until(condition: Callable[[], object], limit: float = SOON) -> None:
    """Wait until a condition is true; fail after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be so in time"
        time.sleep(0.02)


@contextmanager
def running(folder: Path, nodes: int = 3, grace: int = 0) -> Iterator[Cluster]:
    """Run a cluster while the block runs.

    Args:
        folder: where its files go.
        nodes: how many nodes it has.
        grace: seconds that a preempted job has to end.
    """
    cluster = Cluster(folder, nodes)
    try:
        cluster.start(grace)
        yield cluster
    finally:
        cluster.end()
