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
# Runs that are already finished are skipped.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment requirements.txt
task="$1" data="$(from_caller "$2")" model="$3" out="$(from_caller "$4")"
# A name of the model hub is no folder and stays as it is.
if [ -e "$(from_caller "$model")" ]; then model="$(from_caller "$model")"; fi
shift 4
extra=("$@")

finished() { grep -qs '"status": "finished"' "$1/run.json"; }

run() { # METHOD HEAD SEED
    local folder="$out/$1-$2-head-seed$3"
    if finished "$folder"; then return; fi
    rm -rf "$folder"
    python federatedscope/main.py --cfg yamls/minilm.yaml --outdir "$folder" \
        federate.method "$1" personalization.head "$2" seed "$3" \
        data.type "$task@glue" data.root "$data" data.seed "${DATA_SEED:-1}" \
        model.type "$model@huggingface_llm" \
        federate.total_round_num "${ROUNDS:-10}" eval.freq "${EVAL_EVERY:-5}" \
        ${extra[@]+"${extra[@]}"}
}

for seed in ${SEEDS:-0 1 2}; do
    for head in local shared; do
        for method in fedsa fedavg ffa; do
            run "$method" "$head" "$seed"
        done
    done
    # Nothing travels, so both head rules are this one run.
    run local local "$seed"
done
python -m federatedscope_ext compare "$out" --out "$out/comparison"
