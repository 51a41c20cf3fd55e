#!/bin/sh
# The long form of test_crash.py: interop/crash/nightly.sh [rounds]
#
# Five minutes with 60 rounds, which is the default. PYTHON names the interpreter. Exit status 1 if
# anything fails; all of it is run in any case.
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
rounds=${1:-60}
status=0

run() { echo "== $*"; "$python" "$@" || status=1; }

run -m pytest "$here/test_ledger.py" -p no:cacheprovider
run "$here/kill9.py" --rounds "$rounds"
run "$here/kill9.py" --rounds "$rounds" --seconds-per-round 0.3
run "$here/disk_full.py"
run "$here/fsync_fails.py" fsync write
exit $status
