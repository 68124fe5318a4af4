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

# fuzz DIR NAME runs one target. When its time is up, Go's coordinator of fuzzing
# may take that for an error (internal/fuzz compares the end of its context with
# that of a child, which comes a moment later); what a worker found would stand in
# its place. So this one line, with no input that fails, says that nothing was
# found in the whole time.
fuzz() {
	local out no_finding="--- FAIL: $2 \\([0-9.]+s\\)"$'\n    context deadline exceeded\nFAIL\n'
	if out=$("$go" test -run '^$' -fuzz "^$2\$" -fuzztime "$duration" -fuzzminimizetime 1x "$1" 2>&1); then
		echo "$out"
		return 0
	fi
	echo "$out"
	if [[ $out =~ $no_finding && $out == *'now fuzzing with'* && $out != *'Failing input'* ]]; then
		echo "fuzz: $2 ran for its whole time and found nothing"
		return 0
	fi
	return 1
}

echo "${#targets[@]} fuzz targets, $duration each"
for target in "${targets[@]}"; do
	read -r dir name <<<"$target"
	fuzz "$dir" "$name"
done
