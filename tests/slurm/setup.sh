#!/usr/bin/env bash
# A real SLURM of one node on this machine, for the tests with the marker `slurm`.
#
#   tests/slurm/setup.sh          start it (installs Debian's packages if they are absent; root)
#   tests/slurm/setup.sh stop     stop it and remove its files
#
# BENCH_SLURM_MAX_ARRAY sets MaxArraySize. Everything lies in $BENCH_SLURM (default
# /tmp/bench-slurm); its commands need
#   export SLURM_CONF=$BENCH_SLURM/slurm.conf
set -euo pipefail

folder=${BENCH_SLURM:-/tmp/bench-slurm}
export SLURM_CONF=$folder/slurm.conf
export PATH=$PATH:/usr/sbin

fail() { echo "$1" >&2; exit 1; }

stop() {
    for name in slurmd slurmctld munged; do
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

if ! command -v slurmctld slurmd sbatch munged >/dev/null; then
    command -v apt-get >/dev/null || fail "There is no apt-get to install SLURM with."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends \
        slurmd slurmctld slurm-client munge >"/tmp/bench-slurm-install.log" 2>&1 ||
        fail "SLURM could not be installed; see /tmp/bench-slurm-install.log."
fi

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
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
MaxArraySize=${BENCH_SLURM_MAX_ARRAY:-1001}
KillWait=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

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
