#!/usr/bin/env bash
# What a machine with one NVIDIA GPU does: parity of the Triton kernels, speed of the dose, ten steps of each recipe, and
# planning by each planner. All results are in OUT/gpu.json.
# tests/benchmarks/gpu.sh OUT          # at most nine minutes; needs torch 2.6 or later with CUDA, and no network
# WHEELS=folder of wheels              # used first, outside the environment, for what the machine lacks
# DEVICE=cpu SIZE=tiny                 # every command but the parity tests on a machine without a GPU, to check this script
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"
out=$(realpath "$1")
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
size=${SIZE:-base}
large=${SIZE:-clinical}
voxels=${VOXELS:-30000}
recipes=${RECIPES:-teacher regression distillation learned_optimizer}
precisions=${PRECISIONS:-32-true bf16-mixed}
planners=${PLANNERS:-conventional,regression,generator,learned,teacher,fluence,reference}
jobs=${JOBS:-8}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl
    export PYTHONPATH="$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
export WANDB_MODE=offline CUBLAS_WORKSPACE_CONFIG=:4096:8
vmat() { "$python" -m lightning_vmat.cli "$@"; }

if [ "$device" = cuda ]; then
    "$python" -c 'import sys, torch; torch.cuda.is_available() or sys.exit("gpu.sh: no CUDA device, expected one (or DEVICE=cpu)")'
    accelerator=gpu
    echo "== parity of the kernels"
    "$python" -m pytest -q -p no:cacheprovider --junitxml "$out/parity.xml" tests/dose/triton_parity.py
else
    accelerator=$device
fi

echo "== speed of the dose"
vmat benchmark dose --device "$device" --json "$out/dose.json" ${SIZE:+--sizes "[$SIZE]" --repeats 1}

echo "== ten steps of each recipe"
if [ "$size" = base ]; then # eight of the shipped cases with their plans
    vmat prepare unpack prostate_wished --out "$work/training" --shard 1/25 --jobs "$jobs"
else
    vmat prepare phantom --out "$work/training" --count 8 --size "$size" --plan true --jobs "$jobs"
fi
"$python" tests/benchmarks/gpu_results.py split "$work/training" # four cases for training, two each for validation and test
for precision in $precisions; do
    for recipe in $recipes; do
        case $recipe in
            distillation) from=(--model.init_args.teacher prostate_wished/teacher) ;;
            learned_optimizer) from=(--model.init_args.generator prostate_wished/regression) ;;
            *) from=() ;;
        esac
        run="$work/$recipe-$precision"
        vmat fit --config "configs/$recipe.yaml" "${from[@]}" --data.cohort "$work/training" \
            ${SIZE:+--data.voxels 300} --trainer.accelerator "$accelerator" --trainer.precision "$precision" \
            --trainer.default_root_dir "$run" --trainer.max_epochs 5 >"$out/$recipe-$precision.log" 2>&1 ||
            { tail -n 3 "$out/$recipe-$precision.log"; continue; }
        cp "$run"/metrics/version_0/metrics.csv "$out/$recipe-$precision.csv"
        tail -n 1 "$out/$recipe-$precision.log"
    done
done

echo "== planning"
plan_all() { # size, number of phantoms, seed: those beyond 900,000 are test cases
    vmat prepare phantom --out "$work/$1-$3" --count "$2" --size "$1" --seed "$3" --jobs "$jobs"
    timeout "${LIMIT_S:-150}" "$python" -m lightning_vmat.cli benchmark planners --cohort "$work/$1-$3" --device "$device" \
        --planners "$planners" --voxels "$4" --json "$out/planners-$5.json" >"$out/planners-$5.txt" ||
        echo "planners-$5: stopped, see planners-$5.json.partial"
}
plan_all "$size" "${CASES:-10}" 900401 "$voxels" base
plan_all "$large" 2 900501 "$((2 * voxels))" clinical

"$python" tests/benchmarks/gpu_results.py join "$out"
