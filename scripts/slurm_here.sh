#!/usr/bin/env bash
# A Slurm of one machine on the loopback address, to test sweeps against the real thing (Debian: apt-get install slurm-wlm munge; as root).
#
#   scripts/slurm_here.sh start [FOLDER]    prints FOLDER (a new temporary one, if none is given); everything it writes is in there
#   scripts/slurm_here.sh status FOLDER     nodes and jobs
#   scripts/slurm_here.sh stop FOLDER       cancels all jobs, ends the daemons; logs stay
#
# Then: export SLURM_CONF=FOLDER/slurm.conf, and sbatch, squeue, scancel work. The partition `gpu` has one node that claims 2 GPUs, 16 CPUs
# and 128 GB, whatever the machine has: two jobs of one GPU each run at once, the others wait. No accounting (no sacct), no cgroups.
set -euo pipefail
action=${1:-} folder=${2:-}
fail() { echo "slurm_here: $*" >&2; exit 1; }
daemons=(slurmctld slurmd munged)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

pid_of() { # the process of a daemon, if it lives and is ours
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && [ -r "/proc/$pid/cmdline" ] && grep -aq "$folder" "/proc/$pid/cmdline" && echo "$pid"
}

wait_until() { # wait_until SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

stop() {
    export SLURM_CONF=$folder/slurm.conf
    if pid_of slurmctld >/dev/null; then
        scancel --quiet --full --partition=gpu || true
        wait_until 20 bash -c '[ -z "$(squeue --noheader)" ]' || true
    fi
    local name pid
    for name in "${daemons[@]}"; do
        pid=$(pid_of "$name") || continue
        kill "$pid"
        wait_until 15 bash -c "! kill -0 $pid" || kill -9 "$pid"
    done
}

start() {
    for name in "${daemons[@]}" sbatch; do command -v "$name" >/dev/null || fail "$name is not installed (Debian: slurm-wlm, munge)"; done
    [ "$(id -u)" = 0 ] || fail "slurmd runs jobs as their users, so it has to be started by root"
    [ -n "$folder" ] || folder=$(mktemp -d "${TMPDIR:-/tmp}/slurm.XXXXXX")
    mkdir -p "$folder"/{state,spool}
    chmod 755 "$folder"
    folder=$(cd "$folder" && pwd)
    local host
    host=$(hostname -s)
    head -c 128 /dev/urandom >"$folder/munge.key"
    chmod 600 "$folder/munge.key"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,requeue_delay=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=300
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=16 RealMemory=131072 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    touch "$folder"/gpu{0,1} # stand for devices: without a file a GPU is not counted
    echo "NodeName=$host Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
    export SLURM_CONF=$folder/slurm.conf
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" --num-threads=2 2>>"$folder/munged.log" ||
        fail "munged did not start: $(tail -n 1 "$folder/munged.log")"
    slurmctld -f "$SLURM_CONF" -c 2>>"$folder/slurmctld.log" || fail "slurmctld did not start: $(tail -n 1 "$folder/slurmctld.log")"
    slurmd -f "$SLURM_CONF" -N "$host" 2>>"$folder/slurmd.log" || fail "slurmd did not start: $(tail -n 1 "$folder/slurmd.log")"
    if ! wait_until 30 bash -c '[ "$(sinfo --noheader --format=%T)" = idle ]'; then
        stop
        fail "the node did not get ready: $(tail -n 1 "$folder/slurmctld.log")"
    fi
    echo "$folder"
}

case $action in
start) start ;;
stop | status)
    [ -f "$folder/slurm.conf" ] || fail "usage: scripts/slurm_here.sh $action FOLDER"
    folder=$(cd "$folder" && pwd)
    if [ "$action" = stop ]; then stop; else SLURM_CONF=$folder/slurm.conf bash -c 'sinfo --long; squeue'; fi
    ;;
*) fail "usage: scripts/slurm_here.sh start [FOLDER] | status FOLDER | stop FOLDER" ;;
esac
