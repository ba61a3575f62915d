#!/usr/bin/env bash
# Mine negative chips with N processes on this machine: NCCL on GPUs, gloo without.
# For several machines and other settings see _torchrun.sh.
set -euo pipefail
if [ $# -lt 5 ]; then
    echo "usage: $0 CONFIG CHECKPOINT N --out F.npz [arguments of mine_negatives.py ...]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh"
run_distributed "$3" analysis_tools/mine_negatives.py "$1" "$2" --launcher pytorch "${@:4}"
