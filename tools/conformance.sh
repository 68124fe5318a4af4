#!/usr/bin/env bash
# usage: conformance.sh [FLAGS of go test]
# Runs the tests in files with the build tag "conformance", and only those: the
# others gain nothing from a second run. Where the real counterparts are comes
# from the environment; `make conformance` makes them and sets it.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is a module of its own is no package of this one.
mapfile -t files < <(
	git ls-files --cached --others --exclude-standard -- '*_test.go' ':!test/vaultserver' ':!test/kubeapiserver' |
		xargs -r grep -lE '^//go:build .*\bconformance\b'
)
if ((${#files[@]} == 0)); then
	echo 'no test has the build tag "conformance"' >&2
	exit 1
fi
mapfile -t packages < <(printf '%s\n' "${files[@]}" | xargs -n1 dirname | sort -u | sed 's|^|./|')
names=$(sed -nE 's/^func (Test[A-Z0-9_][A-Za-z0-9_]*)\(.*/\1/p' "${files[@]}" | sort -u | paste -sd '|')
CGO_ENABLED=0 "${GO:-go}" test -run "^($names)\$" "$@" -count=1 -tags conformance -timeout 20m "${packages[@]}"
