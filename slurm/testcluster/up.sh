#!/usr/bin/env bash
# A real SLURM cluster on this one machine, to try job scripts on and for the tests of the marker `slurm`: munged, slurmctld
# and a slurmd for each of two nodes, all on the loopback interface, with no systemd, no cgroups and made-up GPUs.
#
#   bash slurm/testcluster/up.sh && source /tmp/instructedit-slurm-$UID/env.sh && sinfo
#   bash slurm/testcluster/down.sh
#
# Needs root (Debian or Ubuntu: it installs slurmctld, slurmd, slurm-client and munge where they are missing). A cluster that
# runs already is left alone. Variables, all optional:
#   INSTRUCTEDIT_SLURM_FOLDER  where everything of it lies (/tmp/instructedit-slurm-$UID)
#   INSTRUCTEDIT_SLURM_PORT    slurmctld's port (27817); the nodes take the ones after it
#   INSTRUCTEDIT_SLURM_NODES   how many nodes (2)
# Partitions: main; low, whose jobs are preempted by those of main and requeued: SIGTERM, 20 s later SIGKILL.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
folder=${INSTRUCTEDIT_SLURM_FOLDER:-/tmp/instructedit-slurm-$UID}
port=${INSTRUCTEDIT_SLURM_PORT:-27817}
nodes=${INSTRUCTEDIT_SLURM_NODES:-2}
host=$(hostname -s)
user=$(id -un)

fail() { echo "testcluster: $*" >&2; exit 1; }

source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

missing=()
for name in slurmctld slurmd sbatch munged mungekey; do command -v "$name" >/dev/null || missing+=("$name"); done
if ((${#missing[@]})); then
    [ "$UID" = 0 ] && command -v apt-get >/dev/null \
        || fail "${missing[*]} not found. Install slurmctld, slurmd, slurm-client and munge, then run this again."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
fi

# munged refuses a folder that others may write to.
mkdir -p -m 755 "$folder" "$folder/munge" "$folder/log"
mkdir -p -m 700 "$folder/state"

names=$(seq -s, -f 'node%g' 1 "$nodes")
new=$(mktemp "$folder/slurm.conf.XXXXXX")
{
    cat <<CONF
ClusterName=instructedit-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
# Loopback only.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A job that was requeued waits until its credential has expired: 120 s by default.
AuthInfo=socket=$folder/munge/socket,cred_expire=6,ttl=60
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/log/slurmd.%n.log
SlurmdSpoolDir=$folder/spool.%n
# No cgroups in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,bf_resolution=1,batch_sched_delay=0,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
CompleteWait=0
OverTimeLimit=0
InactiveLimit=0
# Ended jobs stay known: there is no accounting to ask.
MinJobAge=3600
ReturnToService=2
# More CPUs than the machine has.
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
TCPTimeout=5
MessageTimeout=10
GresTypes=gpu
CONF
    for number in $(seq 1 "$nodes"); do
        echo "NodeName=node$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + number)) CPUs=8 RealMemory=8000 Gres=gpu:2 State=UNKNOWN"
    done
    echo "PartitionName=main Nodes=$names Default=YES MaxTime=120 State=UP PriorityTier=10 PreemptMode=OFF"
    echo "PartitionName=low Nodes=$names MaxTime=120 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20"
} > "$new"
if alive "$folder/slurmctld.pid" slurmctld && ! cmp -s "$new" "$folder/slurm.conf"; then
    rm -f "$new"
    fail "a cluster with other settings runs in $folder. Run down.sh first."
fi
mv "$new" "$folder/slurm.conf"
# Any character device will do as a GPU that nobody uses.
for number in $(seq 1 "$nodes"); do echo "NodeName=node$number Name=gpu Count=2 File=/dev/tty[0-1]"; done > "$folder/gres.conf"
printf 'export SLURM_CONF=%q\nexport INSTRUCTEDIT_SLURM_FOLDER=%q\n' "$folder/slurm.conf" "$folder" > "$folder/env.sh"
export SLURM_CONF=$folder/slurm.conf

# Ranks find each other by the nodes' names.
for number in $(seq 1 "$nodes"); do
    getent hosts "node$number" >/dev/null && continue
    [ -w /etc/hosts ] || fail "node$number does not resolve. Add '127.0.0.1 node$number' to /etc/hosts."
    echo "127.0.0.1 node$number" >> /etc/hosts
done

if ! alive "$folder/munge/pid" munged; then
    [ -f "$folder/munge/key" ] || (umask 077 && mungekey --create --keyfile="$folder/munge/key")
    rm -f "$folder"/munge/socket*
    munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --seed-file="$folder/munge/seed" --log-file="$folder/log/munged.log" --num-threads=2
fi
alive "$folder/slurmctld.pid" slurmctld || slurmctld
for number in $(seq 1 "$nodes"); do
    mkdir -p "$folder/spool.node$number"
    alive "$folder/slurmd.node$number.pid" slurmd || slurmd -N "node$number"
done

# Each question to a controller that is not there takes seconds: a deadline by the clock.
end=$((SECONDS + 30))
while [ $SECONDS -lt $end ]; do
    ready=$(timeout 5 sinfo -h -N -p main -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated|completing)$' || true)
    if [ "$ready" = "$nodes" ]; then
        echo "testcluster: $nodes nodes, partitions main and low. source $folder/env.sh"
        exit 0
    fi
    sleep 0.2
done
grep -hiE 'fatal|error' "$folder"/log/*.log | tail -8 >&2
fail "the nodes did not come up in 30 s; logs lie in $folder/log"
