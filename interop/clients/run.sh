#!/bin/sh
# Runs other people's clients against a broker: interop/clients/run.sh [AMQP_URI] [pytest options]
#
# Without a URI (argument or environment) it starts an amqpd of its own. It needs the Python
# packages of `pip install .[interop]`; amqplib for Node and Debian's amqp-tools are used where
# they are installed. Where they are not, their tests are skipped, or fail if CI is set.
# PYTHON names the interpreter. Everything it makes is below interop/clients.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

case ${1:-} in
    amqp://*) export AMQP_URI="$1" && shift ;;
esac

if ! "$python" -c 'import pytest, pika, aio_pika, celery, amqpd'; then
    echo "run.sh: install the clients first: $python -m pip install '.[interop]'" >&2
    exit 2
fi
if command -v npm >/dev/null; then
    (cd "$here/node" && npm ci --silent --no-audit --no-fund --cache "$here/.run/npm")
elif [ -n "${CI:-}" ]; then
    echo "run.sh: npm is not installed, and CI is set: install nodejs and npm" >&2
    exit 2
else
    echo "run.sh: npm is not installed: the tests of amqplib are skipped" >&2
fi

mkdir -p "$here/.run"
exec "$python" -m pytest "$here" -rs --basetemp="$here/.run/tmp" -o cache_dir="$here/.run/cache" "$@"
