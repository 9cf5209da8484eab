#!/bin/sh
# tools/gpu_probe.py on the CPU: it runs to its end, `orrery calibrate --from` reads what it wrote,
# a stopped run goes on, and without a GPU it says so. Needs a Python with PyTorch 2.1 or later:
# that of scripts/install-torch, else python3; where neither has it, the test is skipped (77).
#
# usage: gpu_probe_test.sh ORRERY PROBE FOLDER
set -eu
orrery=$1
probe=$2
work=$3/gpu_probe_test
venv=${ORRERY_TORCH_VENV:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/orrery/torch-2.11}
python=
for candidate in "$venv/bin/python" python3; do
  if "$candidate" -c 'import sys, torch
sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 1))' 2> /dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "no PyTorch 2.1: skipped"
  exit 77
fi
fail() {
  echo "FAILED: $*"
  exit 1
}
rm -rf "$work"
mkdir -p "$work"
cd "$work"

"$python" "$probe" --device cpu --quick -o probe.json || fail "the probe ended with $?"
ops='launch gemm grouped attention stream norm activation loss rows optimizer copy_to_host'
for op in $ops copy_to_device gather reduce exchange; do
  grep -q "\"op\": \"$op\"" probe.json || fail "no sample of $op"
done
[ ! -e probe.json.part ] || fail "a part is left"
"$orrery" calibrate --from probe.json --cluster local-cpu -o out.json > out.txt ||
  fail "calibrate does not read it"
"$orrery" check out.json > /dev/null || fail "what calibrate wrote is no cluster"

# Without its last samples it is as a stopped run left it: those are measured again, no others.
"$python" - <<'PYTHON'
import json
d = json.load(open("probe.json"))
d["samples"] = [dict(s, seconds=123.0) for s in d["samples"] if s["op"] != "optimizer"]
json.dump(d, open("stopped.json", "w"))
PYTHON
"$python" "$probe" --device cpu --quick --resume -o stopped.json || fail "--resume ended with $?"
"$python" - <<'PYTHON' || fail "--resume measured the wrong samples"
import json
before, after = (json.load(open(f))["samples"] for f in ("probe.json", "stopped.json"))
assert {s["source"] for s in before} == {s["source"] for s in after}
assert len(before) == len(after)
for s in after:
    assert (s["seconds"] == 123.0) == (s["op"] != "optimizer"), s
PYTHON

code=0
said=$(CUDA_VISIBLE_DEVICES= "$python" "$probe" -o never.json) || code=$?
[ "$code" = 5 ] || fail "without a GPU it ended with $code"
[ "$said" = "no GPU: nothing checked" ] || fail "without a GPU it said '$said'"
[ ! -e never.json ] || fail "without a GPU it wrote a file"
echo "passed"
