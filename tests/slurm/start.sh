#!/usr/bin/env bash
# Starts a single-node Slurm in FOLDER, as root and without systemd; `stop` ends it. The node claims 4 CPUs whatever
# the machine has. Prints the path of slurm.conf.
#   tests/slurm/start.sh FOLDER; export SLURM_CONF=FOLDER/slurm.conf; ...; tests/slurm/start.sh FOLDER stop
set -euo pipefail
folder=$(realpath "$1")

if [ "${2:-start}" = stop ]; then
  for name in slurmd slurmctld munged; do
    [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
  done
  exit 0
fi

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
cat > "$folder/slurm.conf" <<CONF
ClusterName=failfast
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=2
KillWait=10
NodeName=localhost NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF

# munge insists on folders and a key that are its own alone
(umask 077; head -c 1024 /dev/urandom > "$folder/munge/key")
chown -R munge:munge "$folder/munge"
chmod 755 "$folder/munge"
runuser -u munge -- /usr/sbin/munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
cp "$folder/munge/pid" "$folder/munged.pid"
export SLURM_CONF=$folder/slurm.conf
/usr/sbin/slurmctld -c
/usr/sbin/slurmd -N localhost
for _ in $(seq 600); do  # two minutes: a busy machine is slow to start it
  if sinfo -h -o %T 2>/dev/null | grep -q idle; then
    echo "$SLURM_CONF"
    exit 0
  fi
  sleep 0.2
done
echo "Slurm does not come up: see $folder/*.log" >&2
tail -3 "$folder"/*.log >&2
exit 1
