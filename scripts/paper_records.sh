#!/usr/bin/env bash
# Make the records for docs/papers: prepare on a machine with data sets and image libraries, train on a GPU.
#   scripts/paper_records.sh prepare DATA OUT          DATA contains acdc, hippocampus, dsb2018, kvasir-seg
#   scripts/paper_records.sh run OUT RECORDS NAME ...  trains each NAME within its minutes; a second call continues
set -euo pipefail

SCANSEG=${SCANSEG:-python3 -m scanseg}
DEVICE=${DEVICE:-cuda}
# Left and right hippocampi are mirror images. Front and back, top and bottom are not.
SIDES="--set augmentation.8.axes=[2] --set inference.mirror_axes=[2] --set training.mirror_validation=true"
NAMES="acdc-published acdc-held-out acdc-decoder hippocampus-blocks nuclei polyps"

words() { # print the command of a record, with @ before its data set
    case $1 in
        acdc-published) echo reproduce msvm-unet @acdc --data acdc --protocol published --from-scratch --max-minutes 1.7 ;; # products in TF32
        acdc-held-out) # all 300 epochs, in less than 8 minutes
            echo reproduce msvm-unet @acdc --data acdc --protocol held-out --from-scratch --seeds 0 --set training.score_both=true --max-minutes 7.9 ;;
        acdc-decoder) echo compare msvm-unet-decoder @acdc --seeds 0 --max-minutes 0.55 ;;
        hippocampus-blocks) echo compare xlstm-unet-blocks-fast @hippocampus $SIDES --max-minutes 0.33 ;;
        nuclei) echo reproduce xlstm-unet @dsb2018 --data dsb2018 --seeds 0 --max-minutes 1.3 ;;
        polyps) echo reproduce msvm-unet @kvasir-seg --data kvasir-seg --from-scratch --seeds 0 --max-minutes 1 ;;
        *) echo "unknown record $1. Choose from $NAMES." >&2; return 2 ;;
    esac
}

device_option() { if [[ $1 == compare ]]; then echo "--devices $DEVICE"; else echo "--device $DEVICE"; fi; }

task=$1; shift
case $task in
    prepare)
        data=$1; out=$2; shift 2
        for name in ${*:-$NAMES}; do
            line=$(words "$name")
            $SCANSEG ${line//@/$data/} --prepare -o "$out/$name"
            rm -rf "${out:?}/$name/dataset" # trainings need only the store
        done ;;
    run)
        out=${1%/}; mkdir -p "$2"; records=$(cd "$2" && pwd); shift 2
        place=$(sed 's/[][\\.*^$+?(){}|#]/\\&/g' <<<"$out")
        failed=""
        for name in "$@"; do
            line=$(words "$name")
            # shellcheck disable=SC2046,SC2001
            $SCANSEG $(sed 's/ @[^ ]*//' <<<"$line") $(device_option $line) --resume -o "$out/$name" \
                || { echo "$name: failed" >&2; failed="$failed $name"; }
            [[ -d $out/$name ]] || continue
            mkdir -p "$records/$name"
            (cd "$out/$name" && find . -maxdepth 1 -type f \( -name 'table.*' -o -name 'comparison.*' -o -name setup.json -o -name plan.json \) \
                -exec cp {} "$records/$name/" \; && find . \( -name run.json -o -name metrics.jsonl -o -name 'test-*.json' -o -name 'validation*.json' \) \
                -exec cp --parents {} "$records/$name/" \;)
            # Remove paths of this machine from the records.
            find "$records/$name" -name '*.json' -exec sed -i -E "s#\"$place/#\"#; s#(\"dataset_path\": \")[^\"]*/#\1#" {} +
        done
        [[ -z $failed ]] || { echo "failed:$failed. Repeat the call to continue them." >&2; exit 1; } ;;
    *) echo "expected prepare or run, got $task" >&2; exit 2 ;;
esac
