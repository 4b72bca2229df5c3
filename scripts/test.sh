#!/usr/bin/env bash
# Every test, with the set-up if it is needed.
#   bash scripts/test.sh [pytest arguments]
# Tests on real data run when FEDERATEDSCOPE_TEST_DATA names a folder with data/ and models/; they are
# skipped without it.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment requirements-test.txt

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# One worker per core, one thread each: the tests are many and small.
export OMP_NUM_THREADS=1
python -m pytest -n "${PYTEST_WORKERS:-auto}" --dist worksteal "$@"
