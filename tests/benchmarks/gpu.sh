#!/usr/bin/env bash
# What a machine with one NVIDIA GPU does: parity of the Triton kernels, speed of the dose, steps of each recipe.
# tests/benchmarks/gpu.sh OUT          # about four minutes; needs torch 2.6 or later with CUDA, and no network
# WHEELS=folder of wheels              # installs them first, outside the environment, for what the machine lacks
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"
out=$(realpath "$1")
python=${PYTHON:-python3}
work=$(mktemp -d)
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl
    export PYTHONPATH="$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
export WANDB_MODE=offline CUBLAS_WORKSPACE_CONFIG=:4096:8
vmat() { "$python" -m lightning_vmat.cli "$@"; }

"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device: this script needs one"'
echo "== parity of the kernels"
"$python" -m pytest -q -p no:cacheprovider tests/dose/triton_parity.py
echo "== speed of the dose"
vmat benchmark dose --device cuda --json "$out/dose_cuda.json"
echo "== ten steps of each recipe"
vmat prepare phantom --out "$work/cohort" --count 5 --size demo --plan true --jobs 4
for precision in 32-true bf16-mixed; do
    for recipe in teacher regression distillation learned_optimizer; do
        case $recipe in
            distillation) from=(--model.init_args.teacher prostate_base/teacher) ;;
            learned_optimizer) from=(--model.init_args.generator prostate_base/regression) ;;
            *) from=() ;;
        esac
        vmat fit --config "configs/$recipe.yaml" "${from[@]}" --data.cohort "$work/cohort" --data.voxels 3000 \
            --trainer.accelerator gpu --trainer.precision "$precision" --trainer.default_root_dir "$work/$precision/$recipe" \
            --trainer.max_epochs 5 >"$out/$recipe-$precision.log" 2>&1
        tail -n 1 "$out/$recipe-$precision.log"
    done
done
