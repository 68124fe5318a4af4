package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	log "github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	aws "github.com/hashicorp/vault/builtin/credential/aws"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// A version 2 engine prepares its storage in the background after it is
// mounted and refuses requests meanwhile; it is asked again this often.
const (
	mountAttempts = 200
	mountInterval = 25 * time.Millisecond
)

// opened is an unsealed Vault.
type opened struct {
	RootToken string
	Handler   http.Handler

	core *vault.Core
}

// initialised is what Vault hands out once, when its storage is new.
type initialised struct {
	RootToken string   `json:"rootToken"`
	UnsealKey [][]byte `json:"unsealKey"`
}

// openVault opens or creates the Vault in the folder, or a new one in memory
// when the folder is empty.
func openVault(dir string) (*opened, error) {
	logger := log.New(&log.LoggerOptions{Name: "vault", Level: log.Warn, Output: os.Stderr})
	storage, err := openStorage(dir, logger)
	if err != nil {
		return nil, fmt.Errorf("opening the storage: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		Logger:             logger,
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory},
		CredentialBackends: methods(),
		BuiltinRegistry:    noPlugins{},
		DisableMlock:       true,
		NumRollbackWorkers: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("creating the core: %w", err)
	}
	keys, fresh, err := initialise(core, dir)
	if err != nil {
		return nil, errors.Join(err, core.Shutdown())
	}
	v := &opened{RootToken: keys.RootToken, core: core}
	for _, key := range keys.UnsealKey {
		if _, err := core.Unseal(key); err != nil {
			return nil, errors.Join(fmt.Errorf("unsealing: %w", err), core.Shutdown())
		}
	}
	if fresh {
		if err := v.mount(); err != nil {
			return nil, errors.Join(err, core.Shutdown())
		}
	}
	if err := v.awaitSecrets(); err != nil {
		return nil, errors.Join(err, core.Shutdown())
	}
	v.Handler = vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Type: "tcp"},
	})
	return v, nil
}

// methods are the ways to log in, by the type that Vault knows them by; each is
// mounted under its own name.
func methods() map[string]logical.Factory {
	return map[string]logical.Factory{
		"approle":    approle.Factory,
		"aws":        aws.Factory,
		"cert":       cert.Factory,
		"jwt":        jwt.Factory,
		"kubernetes": kubernetes.Factory,
		"userpass":   userpass.Factory,
	}
}

// Close seals the Vault and writes what is left to write.
func (v *opened) Close() error { return v.core.Shutdown() }

func openStorage(dir string, logger log.Logger) (physical.Backend, error) {
	if dir == "" {
		return inmem.NewInmem(nil, logger)
	}
	return file.NewFileBackend(map[string]string{"path": filepath.Join(dir, "storage")}, logger)
}

// initialise returns the keys of the Vault, made now when fresh is true.
func initialise(core *vault.Core, dir string) (keys initialised, fresh bool, err error) {
	ctx := namespace.RootContext(context.Background())
	done, err := core.Initialized(ctx)
	if err != nil {
		return keys, false, fmt.Errorf("reading the storage: %w", err)
	}
	path := filepath.Join(dir, "init.json")
	if done {
		text, err := os.ReadFile(path)
		if err != nil {
			return keys, false, fmt.Errorf("reading the unseal key: %w", err)
		}
		if err := json.Unmarshal(text, &keys); err != nil {
			return keys, false, fmt.Errorf("reading the unseal key in %s: %w", path, err)
		}
		return keys, false, nil
	}

	one := func() *vault.SealConfig {
		return &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, StoredShares: 1}
	}
	result, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one(), RecoveryConfig: one()})
	if err != nil {
		return keys, false, fmt.Errorf("initialising: %w", err)
	}
	keys = initialised{RootToken: result.RootToken, UnsealKey: result.SecretShares}
	if dir == "" {
		return keys, true, nil
	}
	text, err := json.Marshal(keys)
	if err != nil {
		return keys, false, err
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return keys, false, fmt.Errorf("writing the unseal key: %w", err)
	}
	return keys, true, nil
}

// mount adds to a new Vault what the tests expect in it.
func (v *opened) mount() error {
	if err := v.write("sys/mounts/secret", map[string]any{
		"type":    "kv",
		"options": map[string]any{"version": "2"},
	}); err != nil {
		return fmt.Errorf("mounting the key-value engine: %w", err)
	}
	for method := range methods() {
		if err := v.write("sys/auth/"+method, map[string]any{"type": method}); err != nil {
			return fmt.Errorf("enabling logins by %s: %w", method, err)
		}
	}
	return nil
}

// awaitSecrets returns when the key-value engine answers.
func (v *opened) awaitSecrets() error {
	var last error
	for range mountAttempts {
		if last = v.request(logical.ReadOperation, "secret/config", nil); last == nil {
			return nil
		}
		time.Sleep(mountInterval)
	}
	return fmt.Errorf("waiting for the key-value engine: %w", last)
}

func (v *opened) write(path string, data map[string]any) error {
	return v.request(logical.UpdateOperation, path, data)
}

func (v *opened) request(op logical.Operation, path string, data map[string]any) error {
	response, err := v.core.HandleRequest(namespace.RootContext(context.Background()), &logical.Request{
		Operation:   op,
		ClientToken: v.RootToken,
		Path:        path,
		Data:        data,
	})
	if err != nil {
		return err
	}
	if response != nil && response.IsError() {
		return response.Error()
	}
	return nil
}

// noPlugins is the registry of a Vault whose engines are all compiled in and
// named in openVault.
type noPlugins struct{}

func (noPlugins) Contains(string, consts.PluginType) bool { return false }

func (noPlugins) Get(string, consts.PluginType) (func() (any, error), bool) { return nil, false }

func (noPlugins) Keys(consts.PluginType) []string { return nil }

func (noPlugins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (noPlugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
