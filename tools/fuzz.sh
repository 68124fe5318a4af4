#!/usr/bin/env bash
# usage: fuzz.sh DURATION [TOTAL_SECONDS]
# Runs every fuzz target for DURATION (as `go test -fuzztime` takes it). With
# TOTAL_SECONDS the time is shared among the targets instead, and DURATION is
# ignored. The corpora that are committed run with the ordinary tests.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
duration=${1:?usage: fuzz.sh DURATION [TOTAL_SECONDS]}
total=${2:-}
export CGO_ENABLED=0

targets=()
while IFS= read -r dir; do
	while IFS= read -r name; do
		targets+=("$dir $name")
	done < <("$go" test -list '^Fuzz' "$dir" | grep '^Fuzz')
done < <(
	git ls-files --cached --others --exclude-standard -- '*_test.go' ':!test/vaultserver' ':!test/kubeapiserver' |
		xargs -r grep -lE '^func Fuzz' | xargs -r -n1 dirname | sort -u | sed 's|^|./|'
)
if ((${#targets[@]} == 0)); then
	echo 'no fuzz target found' >&2
	exit 1
fi
if [[ -n $total ]]; then
	each=$((total / ${#targets[@]}))
	duration=$((each > 0 ? each : 1))s
fi
# fuzz DIR NAME runs one target. Go's fuzzer sometimes reports the end of its own
# time as a failure, without an input that fails: that, and
# nothing else, is tried once more.
fuzz() {
	local out
	for attempt in 1 2; do
		if out=$("$go" test -run '^$' -fuzz "^$2\$" -fuzztime "$duration" -fuzzminimizetime 1x "$1" 2>&1); then
			echo "$out"
			return 0
		fi
		echo "$out"
		if [[ $attempt == 2 || $out != *'context deadline exceeded'* || $out == *'Failing input'* ]]; then
			return 1
		fi
		echo "fuzz: $2 ran out of time without a finding; once more"
	done
}

echo "${#targets[@]} fuzz targets, $duration each"
for target in "${targets[@]}"; do
	read -r dir name <<<"$target"
	fuzz "$dir" "$name"
done
