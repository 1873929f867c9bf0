#!/bin/sh
# A Slurm of one node on loopback, for the tests: munged, slurmctld and slurmd of Debian's packages slurm-wlm and munge.
#
#   scripts/local_slurm.sh start FOLDER    all it writes is in FOLDER; FOLDER/env says what to set to reach it
#   scripts/local_slurm.sh stop FOLDER     ends what start started, by the numbers of its processes
#
# As root. The node claims eight CPUs and 64 GB, whatever the machine has: nothing is bound, nor limited.
# A job in the partition `urgent` preempts those in `debug`: they are requeued. A node whose slurmd has not answered for
# 20 s is lost, and so it is requeued what ran there; `slurmd` alone brings it back.
set -eu
[ $# -eq 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$2"
folder=$(cd "$2" && pwd)

# Ends a process once it is what it was started as: numbers of processes are given out again.
end() { # NAME
    pid=$(cat "$folder/$1.pid" 2>/dev/null) || return 0
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
    kill "$pid" 2>/dev/null || return 0 # it has ended just now
    for _ in $(seq 100); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

stop() {
    if [ -f "$folder/env" ]; then
        # shellcheck disable=SC1091
        (. "$folder/env" && scancel --full --quiet --user root && sleep 1) 2>/dev/null || true
    fi
    for name in slurmd slurmctld munged; do end "$name"; done
    rm -f "$folder/env"
}

start() {
    for program in munged slurmctld slurmd; do
        PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || {
            echo "local_slurm: no $program here: apt-get install slurm-wlm munge" >&2
            exit 2
        }
    done
    chmod 755 "$folder"
    mkdir -p "$folder/state" "$folder/spool" "$folder/bin"
    host=$(hostname -s)
    head -c 128 /dev/urandom >"$folder/munge.key"
    chmod 600 "$folder/munge.key"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
SlurmdTimeout=20
SchedulerParameters=sched_interval=5,batch_sched_delay=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP
CONF
    # Accounting wants a database, which is not here: what submitit asks `sacct` for, `squeue` knows of recent jobs.
    cat >"$folder/bin/sacct" <<'SHIM'
#!/bin/sh
echo 'JobID|State|NodeList'
exec squeue -h -r -t all -o '%i|%T|%N'
SHIM
    chmod 755 "$folder/bin/sacct"
    PATH="$PATH:/usr/sbin"
    SLURM_CONF="$folder/slurm.conf"
    export PATH SLURM_CONF
    munged --force --key-file "$folder/munge.key" --socket "$folder/munge.sock" --pid-file "$folder/munged.pid" \
        --log-file "$folder/munged.log" --seed-file "$folder/munged.seed"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"
    printf 'export SLURM_CONF=%s/slurm.conf PATH=%s/bin:$PATH\n' "$folder" "$folder" >"$folder/env"
    for _ in $(seq 100); do
        if [ "$(sinfo -h -p debug -o %t 2>/dev/null)" = idle ]; then
            echo "local_slurm: up; . $folder/env"
            return
        fi
        sleep 0.2
    done
    echo "local_slurm: the node does not come up, see $folder/slurmctld.log and slurmd.log" >&2
    stop
    exit 1
}

case "$1" in
start) start ;;
stop) stop ;;
*) echo "local_slurm: start or stop, not $1" >&2; exit 2 ;;
esac
