#!/usr/bin/env bash
# Run the GPU tests and make the records for docs/performance.md.
#   scripts/gpu_records.sh RECORDS PART ...      RECORDS is a folder. A failed part does not stop the others.
# Parts:
#   tests        all GPU tests, 8 at a time
#   operators    SS2D core, mLSTM cell, loss; with GOLDEN=FOLDER first the records of the published networks
#   networks     training steps and inference of the papers' networks
#   baselines    the installed networks of nnU-Net and MONAI at the same inputs
#   growth       time and memory of the operators from 1k to 128k tokens
#   memory       predicted and measured memory of training steps
#   steps-NAME   steps with their data, for PLANS/NAME.json and its store in PLANS/stores (training_records.sh prepare)
#   float16-NAME a thousand steps in float16 of the same plan and store
# MINUTES (default 5) limits each part of benchmarks.run. COMMIT names the code if git is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
PLANS=${PLANS:-plans}
COMMIT=${COMMIT:-$(git rev-parse --short HEAD)}

compile_first() { "$PYTHON" -m benchmarks.warm --device "$DEVICE" "$@" || echo "some kernels could not be compiled ahead" >&2; }

measure() { # arguments: name of the record, patterns of entries
    local name=$1; shift
    "$PYTHON" -m benchmarks.run --device "$DEVICE" --commit "$COMMIT" --max-minutes "${MINUTES:-5}" -o "$records/$name.json" "$@"
}

store_of() { # print the store of a plan
    "$PYTHON" - "$1" <<'P'
import sys
from pathlib import Path
from scanseg.preprocessing.store import store_name
from scanseg.specs import Plan
path = Path(sys.argv[1])
plan = Plan.read(path)
print(path.parent / "stores" / store_name(plan.dataset.name, plan.preprocessing, source=plan.dataset_path))
P
}

run_part() {
    local part=$1 golden=() plan store
    [[ -z ${GOLDEN:-} ]] || golden=(--golden "$GOLDEN")
    case $part in
        tests) "$PYTHON" -m pytest -p no:benchmark -m gpu -n "${PROCESSES:-8}" --dist worksteal -q -o addopts=--import-mode=importlib tests ;;
        operators)
            compile_first 'ss2d*' 'mlstm*' 'loss*'
            measure operators "${golden[@]}" --entries 'ss2d*' 'mlstm*' 'loss*' ;;
        networks)
            compile_first 'msvm*' 'xlstm*'
            measure networks --entries 'msvm*' 'xlstm*' ;;
        baselines) measure baselines --entries 'plain-unet*' 'nnunet*' 'monai*' ;;
        growth) "$PYTHON" -m benchmarks.growth --device "$DEVICE" --commit "$COMMIT" -o "$records/growth.json" ;;
        memory) "$PYTHON" -m benchmarks.memory_prediction --device "$DEVICE" --commit "$COMMIT" -o "$records/memory.json" ;;
        steps-* | float16-*)
            plan=$PLANS/${part#*-}.json; store=$(store_of "$plan") || return 1
            local program=benchmarks.step_profile
            [[ $part == steps-* ]] || program=benchmarks.fp16_run
            "$PYTHON" -m "$program" "$plan" "$store" --device "$DEVICE" --commit "$COMMIT" -o "$records/$part.json" ;;
        *) echo "unknown part $part. See the head of scripts/gpu_records.sh." >&2; return 2 ;;
    esac
}

records=${1:?pass the folder of the records}; shift
mkdir -p "$records"
failed=""
for part in "$@"; do
    begin=$SECONDS
    run_part "$part" || failed="$failed $part"
    echo "$part: $((SECONDS - begin)) s"
done
[[ -z $failed ]] || { echo "failed:$failed" >&2; exit 1; }
