#!/usr/bin/env bash
# usage: conformance.sh [FLAGS of go test]
# Runs the packages that have tests with the build tag "conformance", and only
# those: the others gain nothing from a second run.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t packages < <(
	git ls-files --cached --others --exclude-standard -- '*_test.go' ':!test/vaultserver' |
		xargs -r grep -lE '^//go:build .*\bconformance\b' | xargs -r -n1 dirname | sort -u | sed 's|^|./|'
)
if ((${#packages[@]} == 0)); then
	echo 'no test has the build tag "conformance"' >&2
	exit 1
fi
CGO_ENABLED=0 "${GO:-go}" test "$@" -count=1 -tags conformance -timeout 20m "${packages[@]}"
