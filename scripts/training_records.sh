#!/usr/bin/env bash
# Make the records of trainings that have a target for time and Dice.
# Prepare on a machine with image libraries, train on a GPU.
#   scripts/training_records.sh prepare DATA OUT [NAME ...]     DATA contains hippocampus, chaos-mr, brats2015
#   scripts/training_records.sh run OUT RECORDS NAME ...        NAME-SEED uses another seed than 0
#   scripts/training_records.sh raw RECORDS NAME ...            also plans and preprocesses; needs DATA=FOLDER
# Every line of a training is printed after the seconds since its start. The total time is printed at the end.
# To try other settings: MINUTES=2 EXTRA="--set KEY=VALUE ...".
set -euo pipefail

SCANSEG=${SCANSEG:-python3 -m scanseg}
DEVICE=${DEVICE:-cuda}
NAMES="hippocampus-enc hippocampus-none hippocampus-plain chaos-mr brats2015"
# Left and right hippocampi are mirror images. Front and back, top and bottom are not.
SIDES="--set augmentation.8.axes=[2] --set inference.mirror_axes=[2] --set training.mirror_validation=true"

dataset_of() { case $1 in hippocampus-*) echo hippocampus ;; *) echo "$1" ;; esac; }

plan_of() { # print recipe and settings of a record
    case $1 in
        hippocampus-enc) echo --recipe xlstm-unet-fast $SIDES ;;
        hippocampus-none) echo --recipe xlstm-unet-fast $SIDES --set network.sequence_block=none ;;
        hippocampus-plain) echo --recipe plain-unet-fast $SIDES ;;
        chaos-mr | brats2015) echo --recipe xlstm-unet ;;
        *) echo "unknown record $1. Choose from $NAMES." >&2; return 2 ;;
    esac
}

minutes_of() { case $1 in hippocampus-*) echo 0.9 ;; chaos-mr) echo 4.5 ;; brats2015) echo 1 ;; esac; }

with_folds() { # copy a data set and add a fold with its validation cases
    cp -r "$1" "$2"; chmod -R u+w "$2"
    python3 - "$2" <<'P'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
names = sorted({path.name.rsplit("_", 1)[0] for path in (folder / "imagesTr").iterdir()})
left_out = [name for name in names if name in ("chaos_19", "chaos_20")] or names[-1:]
folds = [{"train": [name for name in names if name not in left_out], "val": left_out}]
(folder / "splits_final.json").write_text(json.dumps(folds))
P
}

stamp() { # print each line, or the last state of a progress bar, after its seconds
    python3 -u -c '
import sys, time
begin = time.monotonic()
for line in sys.stdin:
    print(f"{time.monotonic() - begin:7.1f}", line.rstrip().split("\r")[-1], flush=True)'
}

keep() { # copy the records of a model folder, without the path of its data set on this machine
    mkdir -p "$2"; cp "$1"/{run.json,metrics.jsonl,curves.png} "$2"/; cp "$1"/validation*.json "$2"/
    sed 's#"dataset_path": ".*/#"dataset_path": "#' "$1"/plan.json > "$2"/plan.json
}

task=$1; shift
case $task in
    prepare)
        data=$1; out=$2; shift 2; mkdir -p "$out"
        for name in ${*:-$NAMES}; do
            set_name=$(dataset_of "$name"); source=$data/$set_name
            if [[ ! -e $source/splits_final.json ]]; then
                source=$out/data/$set_name; mkdir -p "$out/data"
                [[ -d $source ]] || with_folds "$data/$set_name" "$source"
            fi
            # shellcheck disable=SC2046
            $SCANSEG plan "$source" $(plan_of "$name") -o "$out/$name.json" --overwrite
            $SCANSEG preprocess "$out/$name.json" --store "$out/stores"
        done ;;
    run | raw)
        [[ $task == run ]] && { out=$1; shift; }
        records=$1; shift; mkdir -p "$records"
        models=${MODELS:-$(mktemp -d)}; echo "model folders: $models"
        for word in "$@"; do
            name=${word%-[0-9]}; seed=${word##*-}; [[ $seed =~ ^[0-9]$ ]] || seed=0
            model=$models/$word; begin=$SECONDS
            if [[ $task == run ]]; then from=("$out/$name.json" --store "$out/stores"); else
                # shellcheck disable=SC2046,SC2207
                from=("${DATA:?set it to the folder of the data sets}/$(dataset_of "$name")" $(plan_of "$name")); fi
            # shellcheck disable=SC2086
            $SCANSEG train "${from[@]}" -o "$model" --fold 0 --seed "$seed" --device "$DEVICE" \
                --max-minutes "${MINUTES:-$(minutes_of "$name")}" ${EXTRA:-} 2>&1 | stamp
            echo "$word: $((SECONDS - begin)) s in all" | tee -a "$records/seconds.txt"
            keep "$model" "$records/$word"
        done ;;
    *) echo "expected prepare, run or raw, got $task" >&2; exit 2 ;;
esac
