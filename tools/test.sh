#!/usr/bin/env bash
# Sets up what is missing and runs every test: ctest, then the Python clients' view of our files. Ends with the sums and the number of skipped tests.
# usage: tools/test.sh
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70

fail() { echo "test: $2" >&2; exit "$1"; }

case "${1-}" in
  "") ;;
  -h | --help) sed -n '2,3s/^# //p' tools/test.sh; exit 0 ;;
  *) fail 2 "unknown argument '$1' (usage: tools/test.sh)" ;;
esac

bash tools/setup.sh --tests || exit $?

# The Python clients live in .venv, made anew whenever the pinned versions change.
pinned=$(sha256sum tests/interop/requirements.txt)
if [[ "$(cat .venv/pinned 2>/dev/null)" != "$pinned" ]]; then
  rm -rf .venv
  python3 -m venv .venv >build/venv.log 2>&1 || fail 5 "python3 -m venv failed: $(tail -n 1 build/venv.log)"
  echo "test: installing the Python clients of tests/interop/requirements.txt"
  .venv/bin/pip install --quiet --disable-pip-version-check -r tests/interop/requirements.txt >build/pip.log 2>&1 ||
    fail 5 "pip could not install tests/interop/requirements.txt: $(tail -n 1 build/pip.log) (all of it: build/pip.log)"
  printf '%s' "$pinned" >.venv/pinned
fi

export OMP_WAIT_POLICY=passive # two tests at a time share the cores
ctest --test-dir build/tests -j2 --output-on-failure --no-tests=error 2>&1 | tee build/ctest.log
status=${PIPESTATUS[0]}

.venv/bin/python -m pytest -q -rs tests/interop 2>&1 | tee build/pytest.log
python_status=${PIPESTATUS[0]}

echo
grep -E '^[0-9]+% tests passed' build/ctest.log
tail -n 1 build/pytest.log
skipped=$(grep -cE '\*\*\*Skipped' build/ctest.log)
skipped_python=$(grep -oE '[0-9]+ skipped' build/pytest.log | tail -n 1 | cut -d' ' -f1)
echo "skipped: $skipped of ctest, ${skipped_python:-0} of pytest; ${SECONDS} s in all"
((status == 0 && python_status == 0)) || exit 1
