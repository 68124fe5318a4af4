#!/usr/bin/env bash
# Fills third_party/googleapis, which is not committed, with the contracts that
# ours import. Sources are pinned: the npm package google-proto-files by the
# checksum in package-lock.json, and the grpc-gateway module by go.sum.
# It does nothing when the pins have not changed since the last run.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=tools/proto
dest=third_party/googleapis
pins=$(cat "$here/package-lock.json" "$here/go.mod" "$here/third-party.sh" | sha256sum)
if [[ -f $dest/.pins && $(<"$dest/.pins") == "$pins" ]]; then
	exit 0
fi

npm ci --prefix "$here" --ignore-scripts --no-audit --no-fund --loglevel=error
google=$here/node_modules/google-proto-files
gateway=$(go list -modfile="$here/go.mod" -mod=readonly -m -f '{{.Dir}}' github.com/grpc-ecosystem/grpc-gateway/v2)
if [[ -z $gateway ]]; then # not downloaded yet
	go mod download -modfile="$here/go.mod" github.com/grpc-ecosystem/grpc-gateway/v2
	gateway=$(go list -modfile="$here/go.mod" -mod=readonly -m -f '{{.Dir}}' github.com/grpc-ecosystem/grpc-gateway/v2)
fi

rm -rf "$dest"
mkdir -p "$dest/google/api" "$dest/google/rpc" "$dest/protoc-gen-openapiv2/options"
for file in api/annotations api/client api/field_behavior api/http api/launch_stage api/resource \
	rpc/code rpc/error_details rpc/status; do
	install -m 0644 "$google/google/$file.proto" "$dest/google/$file.proto"
done
for file in annotations openapiv2; do
	install -m 0644 "$gateway/protoc-gen-openapiv2/options/$file.proto" "$dest/protoc-gen-openapiv2/options/$file.proto"
done
printf '%s' "$pins" >"$dest/.pins"
