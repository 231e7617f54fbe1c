#!/usr/bin/env bash
# Ends the cluster of up.sh: its jobs first, then its daemons, by their pid files. --purge removes its folder too.
set -uo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
folder=${INSTRUCTEDIT_SLURM_FOLDER:-/tmp/instructedit-slurm-$UID}
export SLURM_CONF=$folder/slurm.conf
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

if alive "$folder/slurmctld.pid" slurmctld; then
    mapfile -t jobs < <(timeout 10 squeue -h -o %A 2>/dev/null | sort -u)
    [ "${#jobs[@]}" -gt 0 ] && timeout 10 scancel "${jobs[@]}" 2>/dev/null
    for _ in $(seq 50); do
        [ -z "$(timeout 10 squeue -h 2>/dev/null)" ] && break
        sleep 0.2
    done
fi

stop() { # pid file, name
    alive "$1" "$2" || return 0
    local pid
    pid=$(cat "$1")
    kill "$pid"
    for _ in $(seq 100); do
        alive "$1" "$2" || return 0
        sleep 0.1
    done
    kill -KILL "$pid"
}
for file in "$folder"/slurmd.*.pid; do stop "$file" slurmd; done
stop "$folder/slurmctld.pid" slurmctld
stop "$folder/munge/pid" munged
if [ "${1:-}" = --purge ]; then rm -rf "$folder"; fi
exit 0
