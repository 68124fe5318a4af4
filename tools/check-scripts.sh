#!/usr/bin/env bash
# Fails when a shell script does not parse or lets unset variables pass as empty.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
while IFS= read -r -d '' file; do
	[[ $file == *.sh ]] || head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh\b' || continue
	bash -n "$file" || failed=1
	if ! grep -qE '^set -[a-z]*u' "$file"; then
		echo "$file: say 'set -euo pipefail' (or 'set -eu') at the top" >&2
		failed=1
	fi
done < <(git ls-files -z --cached --others --exclude-standard)
exit "$failed"
