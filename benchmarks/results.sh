#!/usr/bin/env bash
# Makes docs/results.md again: train, export, verify and evaluate on each public set.
#   MEDIMG_EDGE_DATA=... bash benchmarks/results.sh [OUT]
# A set whose run is finished is not trained again; an interrupted one goes on. Every look at a test
# split is added to docs/test-looks.csv: commit it with the figures.
set -euo pipefail

: "${MEDIMG_EDGE_DATA:?names the folder of the public sets}"
OUT=${1:-runs}
LOOKS=$(dirname "$0")/../docs/test-looks.csv
CXR_PATIENT='person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+'

measure() {  # name, data, options for train and evaluate
  local name=$1 data=$2
  shift 2
  local run="$OUT/$name" bundle="$OUT/$name-bundle" began
  began=$(date +%s)
  if [ ! -f "$run/run.json" ]; then
    medimg-edge train "$data" --out "$run" --resume "$@"
  fi
  medimg-edge export "$run" --out "$bundle" --name "$name"
  medimg-edge verify "$bundle"
  for artifact in model.onnx model.int8.onnx; do
    medimg-edge evaluate "$bundle" "$data" --artifact "$artifact" \
      --out "$OUT/$name-evaluation-$artifact" --looks "$LOOKS" "$@"
  done
  echo "$name: $(($(date +%s) - began)) s"
}

measure pneumonia-cxr "$MEDIMG_EDGE_DATA/kermany-cxr-224" --group-pattern "$CXR_PATIENT"
measure pneumoniamnist "$MEDIMG_EDGE_DATA/pneumoniamnist-28/pneumoniamnist.npz"
measure breastmnist "$MEDIMG_EDGE_DATA/breastmnist-28/breastmnist.npz"
