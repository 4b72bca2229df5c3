#!/usr/bin/env bash
# fedsa, fedavg, ffa and local under both head rules, several seeds, one fixed partition, on real data
# and a real pretrained encoder that fits a CPU; ends with the comparison table.
#
#   bash scripts/compare_methods.sh TASK DATA_ROOT MODEL_DIR OUTDIR [section.key value ...]
#
#   TASK       sst2, mnli or another GLUE task
#   DATA_ROOT  folder with glue/TASK/*.parquet
#   MODEL_DIR  Hugging Face folder of an encoder, e.g. MiniLM
# Relative folders are relative to the current folder.
# Environment: SEEDS ("0 1 2"), ROUNDS (10), EVAL_EVERY (5), DATA_SEED (1).
# Runs that are already finished are skipped; --jobs N and --dry-run are those of `sweep`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment requirements.txt
task="$1" data="$(from_caller "$2")" model="$3" out="$(from_caller "$4")"
# A name of the model hub is no folder and stays as it is.
if [ -e "$(from_caller "$model")" ]; then model="$(from_caller "$model")"; fi
shift 4
read -ra seeds <<<"${SEEDS:-0 1 2}"
seeds="$(IFS=, && echo "${seeds[*]}")"

# With `local` nothing travels, so both head rules are one run.
python -m federatedscope_ext sweep --cfg yamls/minilm.yaml --outdir "$out" \
    data.type "$task@glue" data.root "$data" data.seed "${DATA_SEED:-1}" \
    model.type "$model@huggingface_llm" \
    federate.total_round_num "${ROUNDS:-10}" eval.freq "${EVAL_EVERY:-5}" "$@" \
    --grid federate.method=fedsa,fedavg,ffa personalization.head=local,shared "seed=$seeds" \
    --grid federate.method=local personalization.head=local "seed=$seeds"
