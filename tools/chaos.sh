#!/usr/bin/env bash
# Builds what is missing and runs tools/chaos.py: kills and failures at every call of the machine.
# usage: tools/chaos.sh [--minutes N] [what tools/chaos.py takes]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cmake --build build --target langcell fail >build/chaos_build.log 2>&1 || { cat build/chaos_build.log >&2; exit 70; }
exec python3 tools/chaos.py "$@"
