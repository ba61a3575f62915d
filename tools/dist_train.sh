#!/usr/bin/env bash
# Train with N processes on this machine: NCCL on GPUs, gloo without.
# For several machines and other settings see _torchrun.sh.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG N [arguments of train.py ...]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh"
run_distributed "$2" train.py "$1" --launcher pytorch "${@:3}"
