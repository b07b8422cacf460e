#!/usr/bin/env bash
# What a GPU has to show: its tests, and the records behind docs/performance.md.
#   scripts/gpu_records.sh RECORDS PART ...      RECORDS: a folder; a part that fails does not stop the others
# Parts, each with its usual time on a machine whose cores have compiled nothing yet:
#   tests        all tests that need a GPU, 8 at a time                                                       (3 min)
#   operators    SS2D core, mLSTM cell, loss; with GOLDEN=FOLDER the records of the published networks first  (3 min)
#   networks     training steps and inference of the papers' networks                                         (4 min)
#   neighbours   nnU-Net's and MONAI's networks at the same inputs (what is installed)                         (2 min)
#   growth       time and memory of the operators from 1k to 128k tokens                                      (1 min)
#   memory       predicted and measured memory of training steps                                              (5 min)
#   steps-NAME   steps with their data, of PLANS/NAME.json and its store in PLANS/stores (training_records.sh prepare)
#   float16-NAME a thousand steps in float16 of the same                                                      (1 min)
# Where there is no git, COMMIT names the code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
PLANS=${PLANS:-plans}
COMMIT=${COMMIT:-$(git rev-parse --short HEAD)}

compile_first() { "$PYTHON" -m benchmarks.warm --device "$DEVICE" "$@" || echo "not all kernels were compiled before" >&2; }

measure() { # name of the record, then patterns of entries
    local name=$1; shift
    "$PYTHON" -m benchmarks.run --device "$DEVICE" --commit "$COMMIT" --max-minutes "${MINUTES:-5}" -o "$records/$name.json" "$@"
}

store_of() { # the store of a plan
    "$PYTHON" - "$1" <<'P'
import sys
from pathlib import Path
from scanseg.data.store import Store
from scanseg.specs import Plan
plan = Plan.read(Path(sys.argv[1]))
for index_file in Path(sys.argv[1]).parent.glob("stores/*/store.json"):
    index = Store.open(index_file.parent).index
    if (index.preprocessing, index.dataset) == (plan.preprocessing, plan.dataset):
        print(index_file.parent)
        break
else:
    sys.exit(f"no store of {sys.argv[1]} beside it; scripts/training_records.sh prepare makes them")
P
}

run_part() {
    local part=$1 golden=() plan store
    [[ -z ${GOLDEN:-} ]] || golden=(--golden "$GOLDEN")
    case $part in
        tests) "$PYTHON" -m pytest -m gpu -n "${PROCESSES:-8}" --dist worksteal -q -o addopts=--import-mode=importlib tests ;;
        operators)
            compile_first 'ss2d*' 'mlstm*' 'loss*'
            measure operators "${golden[@]}" --entries 'ss2d*' 'mlstm*' 'loss*' ;;
        networks)
            compile_first 'msvm*' 'xlstm*'
            measure networks --entries 'msvm*' 'xlstm*' ;;
        neighbours) measure neighbours --entries 'plain-unet*' 'nnunet*' 'monai*' ;;
        growth) "$PYTHON" -m benchmarks.growth --device "$DEVICE" --commit "$COMMIT" -o "$records/growth.json" ;;
        memory) "$PYTHON" -m benchmarks.memory_prediction --device "$DEVICE" --commit "$COMMIT" -o "$records/memory.json" ;;
        steps-* | float16-*)
            plan=$PLANS/${part#*-}.json; store=$(store_of "$plan") || return 1
            local program=benchmarks.step_profile
            [[ $part == steps-* ]] || program=benchmarks.fp16_run
            "$PYTHON" -m "$program" "$plan" "$store" --device "$DEVICE" --commit "$COMMIT" -o "$records/$part.json" ;;
        *) echo "no part $part; see the head of scripts/gpu_records.sh" >&2; return 2 ;;
    esac
}

records=${1:?the folder of the records}; shift
mkdir -p "$records"
failed=""
for part in "$@"; do
    begin=$SECONDS
    run_part "$part" || failed="$failed $part"
    echo "$part: $((SECONDS - begin)) s"
done
[[ -z $failed ]] || { echo "failed:$failed" >&2; exit 1; }
