# Read by dist_train.sh and dist_test.sh: start a script in several processes with torchrun.
#
#   run_distributed N SCRIPT [ARGUMENTS ...]
#
# Environment: NNODES, NODE_RANK, MASTER_ADDR and PORT, as in MMDetection, for several machines;
# PYTHON, the Python to use [that of the shell, else of .venv]. On one machine without PORT a free port is taken, so that several
# runs do not collide.

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
        return
    fi
    for candidate in python "$TOOLS"/../.venv{,-onedl}/bin/python; do
        if "$candidate" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mmengine"))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "no Python with mmengine found: run 'make setup', or set PYTHON" >&2
    exit 1
}

run_distributed() {
    local processes=$1 script=$2
    shift 2
    local meeting=(--standalone)
    if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
        meeting=(
            --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}"
        )
    fi
    local python
    python=$(find_python)
    PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
        exec "$python" -m torch.distributed.run "${meeting[@]}" \
        --nproc_per_node="$processes" "$TOOLS/$script" "$@"
}
