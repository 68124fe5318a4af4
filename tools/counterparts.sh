#!/usr/bin/env bash
# Unpacks Debian's docker-registry and chasquid (an SMTP server), which
# conformance tests run, into .build/counterparts and prints where the programs
# are, as variables of the environment. Nothing is installed; what is there
# already stays. Needs apt-get and dpkg.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=${OUT:-.build}/counterparts
mkdir -p "$directory"
cd "$directory"

unpack() {
	local package=$1 program=$2 download
	[[ -x $program ]] && return 0
	download=$(mktemp -d)
	# apt gives up root for its downloads where it can.
	chmod 755 "$download"
	if ! (cd "$download" && apt-get download -qq "$package" >/dev/null 2>&1); then
		if ((EUID == 0)); then
			apt-get update -qq
		fi
		(cd "$download" && apt-get download -qq "$package" >/dev/null)
	fi
	dpkg -x "$download/$package"_*.deb .
	rm -r "$download"
	if [[ ! -x $program ]]; then
		echo "Debian's $package has no $program" >&2
		return 1
	fi
}

unpack docker-registry usr/bin/docker-registry
unpack chasquid usr/bin/chasquid
echo "CREDSTORE_DOCKER_REGISTRY=$PWD/usr/bin/docker-registry"
echo "CREDSTORE_SMTP_SERVER=$PWD/usr/bin/chasquid"
