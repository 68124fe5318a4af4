#!/usr/bin/env bash
# Compares the contract with an earlier one: the newest release tag before this
# commit, or else the commit before it (the current commit itself when proto/ has
# changes that are not committed). AGAINST=<commit> chooses another.
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra buf <<<"${BUF:-go tool -modfile=tools/proto/go.mod buf}"
against=${AGAINST:-}

nothing() {
	echo "breaking: nothing to compare with: $1"
	exit 0
}

if [[ -z $against ]]; then
	git rev-parse --quiet --verify HEAD >/dev/null || nothing 'there is no commit yet'
	from=HEAD
	if [[ -z $(git status --porcelain -- proto) ]]; then
		from=HEAD~1
		git rev-parse --quiet --verify "$from^{commit}" >/dev/null ||
			nothing 'the commit has no parent, or the clone is too shallow to have it'
	fi
	against=$(git describe --tags --abbrev=0 --match 'v*' "$from" 2>/dev/null || echo "$from")
fi
commit=$(git rev-parse --verify "$against^{commit}")
[[ -n $(git ls-tree "$commit" -- proto) ]] || nothing "$against has no proto/"

# The imported contracts are not committed, so the earlier state is put together
# from its own proto/ and the imports of today.
base=${OUT:-.build}/breaking
rm -rf "$base"
mkdir -p "$base/third_party"
git archive "$commit" -- proto | tar -x -C "$base"
cp buf.yaml "$base/"
cp -r third_party/googleapis "$base/third_party/"
"${buf[@]}" breaking --against "$base"
echo "breaking: compatible with $against ($commit)"
