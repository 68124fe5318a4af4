#!/usr/bin/env bash
# Installs a moto server, the stand-in for AWS of the conformance tests, into
# .build/moto, in the versions of moto.txt, and prints the path of its executable.
# Does nothing when it is there already. Needs Python 3.11 or later with venv
# (Debian: python3-venv).
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(cksum <tools/moto.txt)
dir=${OUT:-.build}/moto
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

if [[ $(cat "$dir/version" 2>/dev/null) != "$wanted" || ! -x $dir/bin/moto_server ]]; then
	rm -rf "$dir"
	python3 -m venv "$dir" >&2
	"$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement tools/moto.txt >&2
	"$dir/bin/python" -m pip check --disable-pip-version-check >&2
	# Last, so that an installation that was interrupted is made anew.
	echo "$wanted" >"$dir/version"
fi
echo "$dir/bin/moto_server"
