"""The test cluster itself: it comes up twice, does what its partitions say, and goes away."""

import subprocess

import pytest

from tests.slurm.conftest import TESTCLUSTER, Cluster

pytestmark = pytest.mark.slurm


def test_a_second_start_leaves_the_running_cluster_alone(cluster: Cluster) -> None:
    before = cluster.call("scontrol", "show", "config")
    again = subprocess.run(["bash", str(TESTCLUSTER / "up.sh")], capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    boot = [line for line in before.splitlines() if line.startswith("BOOT_TIME")]
    assert boot and boot[0] in cluster.call("scontrol", "show", "config")


def test_two_nodes_run_one_job_together(cluster: Cluster) -> None:
    told = cluster.call("srun", "-N2", "--ntasks-per-node=1", "bash", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME")
    assert sorted(told.split()) == ["0", "1", "node1", "node2"]


def test_a_node_is_brought_back_whether_it_is_down_or_not(cluster: Cluster) -> None:
    cluster.bring_back("node2")  # it is in service: SLURM would refuse
    cluster.call("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    cluster.bring_back("node2")
    assert "node2" in cluster.call("srun", "-N1", "-w", "node2", "bash", "-c", "echo $SLURMD_NODENAME")
