#!/usr/bin/env bash
# Fails when go.mod or go.sum of a module is not what `go mod tidy` would write.
# Left out is test/vaultserver: tidying looks at the tests of Vault's several
# hundred dependencies, minutes of downloads for a module that its build checks.
set -euo pipefail
cd "$(dirname "$0")/.."
for module in . tools/proto tools/lint tools/crane test/kubeapiserver; do
	echo "go mod tidy -diff ($module)"
	(cd "$module" && "${GO:-go}" mod tidy -diff)
done
