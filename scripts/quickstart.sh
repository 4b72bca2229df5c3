#!/usr/bin/env bash
# The main job on the built-in miniature, from nothing to its report: no GPU, no model hub.
#   bash scripts/quickstart.sh [OUTDIR] [section.key value ...]
# OUTDIR is relative to the current folder; paths among the settings must be absolute.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment requirements.txt

if [ $# -gt 0 ]; then
    outdir="$(from_caller "$1")"
    shift
else
    outdir="$(from_caller exp)/quickstart_$(date +%Y%m%d_%H%M%S)"
fi
python federatedscope/main.py --cfg yamls/fedsa_mnli.yaml --embedded --outdir "$outdir" "$@"
echo
echo "The report: $outdir/report.html"
