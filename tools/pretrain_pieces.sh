#!/usr/bin/env bash
# Pretrain on a machine that has a GPU and torch, but no network, and that is lent for minutes at a time.
#   bash tools/pretrain_pieces.sh pack mixture.yaml packed     here: small copies of the data, and wheels
#   bash tools/pretrain_pieces.sh train packed OUT [SETTINGS]  there, as often as you like: MINUTES=9 a call
#   bash tools/pretrain_pieces.sh join OUT packed              here, after each call
# OUT gets the log, the weights' average in half precision, and the whole run in pieces below 16 MiB. The next call goes
# on with what is still there in pretrain/; a fresh machine with packed/last.pth, or with packed/average.pth where
# that is too large to travel.
set -euo pipefail
PYTHON=${PYTHON:-python3}
case "${1:-}" in
  pack)
    "$PYTHON" -m tools.pack "$2" "$3" --longest "${LONGEST:-256}" --quality "${QUALITY:-75}"
    "$PYTHON" -m pip download -q --no-deps -d "$3/wheels" monai==1.6.1 pytorch-ignite==0.5.5 nibabel==5.4.2 fire==0.7.1 psutil==7.2.2
    du --summarize --apparent-size --human-readable "$3"
    ;;
  train)
    packed=$2 out=$3 kept=pretrain/models
    shift 3
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$PYTHON" -m pip install -q --no-deps --no-index --target "$site" "$packed"/wheels/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    begin=()
    for path in "$kept/last.pth" "$packed/last.pth"; do
      if [ -f "$path" ]; then begin=(--resume_path "$path"); break; fi
    done
    if [ ${#begin[@]} = 0 ] && [ -f "$packed/average.pth" ]; then begin=(--pretrained "$packed/average.pth"); fi
    "$PYTHON" -m monai.bundle run training --config_file "['configs/train.yaml','configs/pretrain.yaml','$packed/mixture.yaml']" \
      --minutes "${MINUTES:-9}" "${begin[@]}" "$@" 2>&1 | tee "$out/log"
    "$PYTHON" - "$kept/model_final.pt" "$out/average.pth" <<'PY'
import sys, torch
served = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
half = {name: value.half() if value.is_floating_point() else value for name, value in served["model"].items()}
torch.save({**served, "model": half}, sys.argv[2])
PY
    split --bytes 15M --numeric-suffixes "$out/average.pth" "$out/average.pth." && rm "$out/average.pth"
    split --bytes 15M --numeric-suffixes "$kept/last.pth" "$out/last.pth."
    ;;
  join)
    for file in average last; do cat "$2/$file.pth".?? > "$3/$file.pth"; done
    ls -l "$3"/*.pth
    ;;
  *)
    sed -n 2,8p "$0"
    exit 2
    ;;
esac
