#!/usr/bin/env bash
# Train on a Slurm cluster. Environment: GPUS (all processes) [8], GPUS_PER_NODE [8],
# CPUS_PER_TASK [5], SRUN_ARGS (more arguments of srun), PYTHON.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py ...]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
# SRUN_ARGS holds several arguments: it is split at its spaces on purpose.
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun -p "$1" --job-name="$2" --gres="gpu:$GPUS_PER_NODE" --ntasks="${GPUS:-8}" \
    --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
