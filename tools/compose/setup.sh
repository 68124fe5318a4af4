#!/bin/sh
# Fills the demonstration of docker-compose.yaml, once: a secret in Vault, a
# credential in credstore, an injection of both, and the token with which the
# injector introduces itself. A second run finds its own mark and does nothing.
# The environment holds CREDSTORE_ADDR, CREDSTORE_CA and CREDSTORE_TOKEN_FILE for
# credstore's commands, VAULT_ADDR and VAULT_TOKEN for Vault.
set -eu

enroll=/run/enroll

# Vault in development mode starts empty each time.
wget -q -O /dev/null --header "X-Vault-Token: $VAULT_TOKEN" \
	--post-data '{"data": {"password": "from-vault"}}' "$VAULT_ADDR/v1/secret/data/app/db"

if [ -s "$enroll/injector.token" ]; then
	echo 'already set up'
	exit 0
fi

# The bodies are those of the REST interface; secrets come by standard input.
credstore credential create demo --project default --file - <<'JSON'
{"description": "demonstration", "payload": {"basic": {"username": "bot", "password": "s3cret"}}}
JSON
credstore credential create vault --project default --file - <<JSON
{"description": "how credstore reaches Vault", "payload": {"vault": {"token": "$VAULT_TOKEN"}}}
JSON
credstore store create team-vault --project default --file - <<JSON
{"credential": "projects/default/credentials/vault", "vault": {"address": "$VAULT_ADDR", "mount": "secret"}, "delivery": "BROKERED", "pollInterval": "5s"}
JSON
credstore injection create demo --project default --file - <<'JSON'
{"selector": {"app": "demo"},
 "items": [
  {"credential": {"name": "projects/default/credentials/demo", "field": "username"}, "file": {"path": "username"}},
  {"credential": {"name": "projects/default/credentials/demo", "field": "password"}, "file": {"path": "password"}},
  {"secret": {"store": "projects/default/secretStores/team-vault", "path": "app/db", "key": "password"}, "file": {"path": "vault-password"}}]}
JSON

cp "$CREDSTORE_CA" "$enroll/ca.pem"
# The token comes last, and in one step, because it is the mark.
credstore token create demo-injector --project default --role workload --attribute app=demo \
	--secret-file "$enroll/.injector.token"
mv "$enroll/.injector.token" "$enroll/injector.token"
