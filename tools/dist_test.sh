#!/usr/bin/env bash
# Test with N processes on this machine: NCCL on GPUs, gloo without.
# For several machines and other settings see _torchrun.sh.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT N [arguments of test.py ...]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh"
run_distributed "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
