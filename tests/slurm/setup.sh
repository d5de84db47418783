#!/usr/bin/env bash
# A real SLURM of one node on this machine, for the tests with the marker `slurm`.
#
#   tests/slurm/setup.sh          start it (installs Debian's packages if they are absent; root)
#   tests/slurm/setup.sh stop     stop it and remove its files
#
# BENCH_SLURM_MAX_ARRAY sets MaxArraySize, BENCH_SLURM_CPUS how many processors the node says it has
# (those of this machine). BENCH_SLURM_ACCOUNTING=1 adds slurmdbd with a MariaDB of its own, and jobs
# that take more memory than they asked for are ended. Those of the partition "urgent" make those of
# "main" give way. Everything lies in $BENCH_SLURM (default /tmp/bench-slurm); its commands need
#   export SLURM_CONF=$BENCH_SLURM/slurm.conf
set -euo pipefail

folder=${BENCH_SLURM:-/tmp/bench-slurm}
export SLURM_CONF=$folder/slurm.conf
export PATH=$PATH:/usr/sbin

fail() { echo "$1" >&2; exit 1; }

stop() {
    # Jobs outlive the daemons.
    if [ -e "$SLURM_CONF" ] && timeout 10 scancel --user="$(id -un)" 2>/dev/null; then
        for _ in $(seq 100); do [ -n "$(squeue --noheader 2>/dev/null)" ] || break; sleep 0.1; done
    fi
    for name in slurmd slurmctld slurmdbd mariadbd munged; do
        pid=$(cat "$folder/$name.pid" 2>/dev/null || true)
        if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
            for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        fi
    done
    rm -rf "$folder"
}

[ "$(id -u)" = 0 ] || fail "A SLURM of one's own needs root."
if [ "${1:-}" = stop ]; then stop; exit; fi
if [ -e "$SLURM_CONF" ] && timeout 10 sinfo --noheader >/dev/null 2>&1; then echo "SLURM runs already: $folder"; exit; fi

bring() {
    command -v apt-get >/dev/null || fail "There is no apt-get to install SLURM with."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" \
        >"/tmp/bench-slurm-install.log" 2>&1 ||
        fail "SLURM could not be installed; see /tmp/bench-slurm-install.log."
}
has() { for name; do command -v "$name" >/dev/null || return 1; done; }
accounting=${BENCH_SLURM_ACCOUNTING:-}
memory=${accounting:+_Memory}
groups=$([ -n "$accounting" ] && [ -w /sys/fs/cgroup/memory ] && echo yes || true)
has slurmctld slurmd sbatch munged || bring slurmd slurmctld slurm-client munge
if [ -n "$accounting" ]; then has slurmdbd mariadbd || bring slurmdbd mariadb-server; fi

stop
mkdir -p "$folder"/{state,spool}
chmod 755 "$folder"
head -c 1024 /dev/urandom >"$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"

host=$(hostname -s)
cat >"$SLURM_CONF" <<CONF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/$([ -n "$groups" ] && echo cgroup || echo none)
SelectType=select/cons_tres
SelectTypeParameters=CR_Core$memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
MaxArraySize=${BENCH_SLURM_MAX_ARRAY:-1001}
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=${BENCH_SLURM_CPUS:-$(nproc)} \
    RealMemory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF

if [ -n "$accounting" ]; then
    cat >>"$SLURM_CONF" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$folder/munge.socket
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
$([ -n "$groups" ] || echo JobAcctGatherParams=OverMemoryKill)
DefMemPerCPU=2000
CONF
    if [ -n "$groups" ]; then
        cat >"$folder/cgroup.conf" <<CONF
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
CONF
    fi
    password=$(head -c 12 /dev/urandom | base64 | tr -d '/+=')
    (
        umask 077
        cat >"$folder/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16820
StorageUser=slurm
StoragePass=$password
PidFile=$folder/slurmdbd.pid
LogFile=$folder/slurmdbd.log
CONF
    )
    database=(--no-defaults --user=root --datadir="$folder/database")
    mariadb-install-db "${database[@]}" --skip-test-db >"$folder/mariadb-install.log" 2>&1
    mariadbd "${database[@]}" --socket="$folder/mariadb.socket" --bind-address=127.0.0.1 --port=16820 \
        --pid-file="$folder/mariadbd.pid" --innodb-lock-wait-timeout=900 \
        >"$folder/mariadbd.log" 2>&1 &
    sql() { mariadb --no-defaults --socket="$folder/mariadb.socket" --execute "$1" 2>/dev/null; }
    for _ in $(seq 100); do ! sql "SELECT 1" >/dev/null || break; sleep 0.2; done
    sql "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '$password';
         GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';" || fail "MariaDB did not come up; see $folder/mariadbd.log."
    slurmdbd
    for _ in $(seq 30); do ! sacctmgr --immediate add cluster bench &>/dev/null || break; sleep 0.5; done
    sacctmgr --noheader list cluster | grep -q bench || fail "slurmdbd did not come up; see $folder/slurmdbd.log."
fi

slurmctld
slurmd
for _ in $(seq 60); do
    case $(sinfo --noheader --format=%t 2>/dev/null) in
        idle | mix | alloc) echo "SLURM runs: export SLURM_CONF=$SLURM_CONF"; exit ;;
    esac
    sleep 0.5
done
tail -n 5 "$folder"/*.log >&2
fail "SLURM did not come up."
