# Sourced by the other scripts: makes the virtual environment .venv in the checkout when it is not
# there or its requirements have changed, and activates it.
#   ensure_environment requirements.txt
# It also changes into the checkout, so paths from the command line go through from_caller first.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

CALLER="$PWD"

from_caller() { # PATH, as seen from the folder the script was called in
    case "$1" in
    /*) echo "$1" ;;
    *) echo "$CALLER/${1#./}" ;;
    esac
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.10 python3; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.10 or newer is needed; set PYTHON=/path/to/python." >&2
    return 1
}

ensure_environment() {
    local requirements="$ROOT/$1" venv="${FEDERATEDSCOPE_VENV:-$ROOT/.venv}" python wanted
    wanted="$(cat "$ROOT"/requirements*.txt | cksum)"
    if [ "$(cat "$venv/.installed-$1" 2>/dev/null)" != "$wanted" ]; then
        python="$(find_python)"
        echo "Setting up $venv (a few minutes the first time) ..."
        [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --upgrade pip
        "$venv/bin/python" -m pip install --quiet -r "$requirements"
        echo "$wanted" >"$venv/.installed-$1"
    fi
    # shellcheck disable=SC1091
    source "$venv/bin/activate"
    cd "$ROOT"
}
