#!/bin/sh
# Fills the demonstration of docker-compose.yaml, once: a credential in
# credstore, an injection of it and of a secret in Vault, and the token with which the
# injector introduces itself. A second run finds its own mark and does nothing.
# The environment holds CREDSTORE_ADDR, CREDSTORE_CA and CREDSTORE_TOKEN_FILE for
# credstore's commands, VAULT_ADDR and VAULT_TOKEN for Vault.
set -eu

enroll=/run/enroll

if [ -s "$enroll/injector.token" ]; then
	echo 'already set up'
	exit 0
fi

# A run that was cut short is repeated from here: --request-id makes each call
# safe to repeat. Secrets come by standard input, never as arguments.
credstore credential create demo --request-id setup-demo --payload - <<'JSON'
{"basic": {"username": "bot", "password": "s3cret"}}
JSON
credstore credential create vault --request-id setup-vault --payload - <<JSON
{"vault": {"token": "$VAULT_TOKEN"}}
JSON
credstore store get team-vault >/dev/null 2>&1 ||
	credstore store create team-vault --credential vault --vault-address "$VAULT_ADDR" --vault-ca /certs/vault-ca.pem --mount secret --poll-interval 5s
credstore injection create demo --request-id setup-demo --file - <<'YAML'
selector: {app: demo}
items:
  - credential: {name: projects/default/credentials/demo, field: username}
    file: {path: username}
  - credential: {name: projects/default/credentials/demo, field: password}
    file: {path: password}
  - secret: {store: projects/default/secretStores/team-vault, path: app/db, key: password}
    file: {path: vault-password}
YAML

cp "$CREDSTORE_CA" "$enroll/ca.pem"
# The token comes last, and in one step, because it is the mark.
credstore token create demo-injector --request-id setup-demo --role workload --attribute app=demo \
	--out-file "$enroll/.injector.token"
mv "$enroll/.injector.token" "$enroll/injector.token"
