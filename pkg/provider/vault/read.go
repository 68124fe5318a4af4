package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/vault/api"

	"github.com/credstore/credstore/pkg/provider"
)

// read asks for a secret with the token of l.
func (s *Session) read(ctx context.Context, l *lease, ref provider.Ref) (provider.Secret, error) {
	var query map[string][]string
	if ref.Version != 0 {
		query = map[string][]string{"version": {strconv.FormatUint(uint64(ref.Version), 10)}}
	}
	answer, err := s.ask(ctx, opRead, l, func(ctx context.Context) (*api.Secret, error) {
		return l.client.Logical().ReadWithDataWithContext(ctx, s.cfg.Mount+"/data/"+ref.Path, query)
	})
	if err != nil {
		return provider.Secret{}, explain(err, ref)
	}
	return secretOf(answer)
}

// explain gives words to the answer for which Vault has none.
func explain(err error, ref provider.Ref) error {
	e, ok := errors.AsType[*provider.Error](err)
	if ok && e.Text == "" && errors.Is(e.Kind, provider.ErrMissing) {
		e.Text = "there is nothing at this path"
		if ref.Version != 0 {
			e.Text = fmt.Sprintf("there is no version %d at this path", ref.Version)
		}
	}
	return err
}

// secretOf returns what the key-value engine answered.
func secretOf(answer *api.Secret) (provider.Secret, error) {
	if answer == nil {
		return provider.Secret{}, strange(opRead)
	}
	meta, ok := answer.Data["metadata"].(map[string]any)
	if !ok {
		return provider.Secret{}, &provider.Error{
			Kind: provider.ErrRefused, Op: opRead,
			Text: "the engine at this mount is no key-value engine of version 2",
		}
	}
	data, ok := answer.Data["data"].(map[string]any)
	if !ok {
		return provider.Secret{}, withoutData(meta)
	}
	version, ok := meta["version"].(json.Number)
	if !ok {
		return provider.Secret{}, strange(opRead)
	}
	values := make(map[string][]byte, len(data))
	for key, v := range data {
		b, err := valueOf(v)
		if err != nil {
			return provider.Secret{}, strange(opRead)
		}
		values[key] = b
	}
	return provider.Secret{Values: values, Version: version.String()}, nil
}

// withoutData says why a version comes without content. Vault has used both a
// status of its own and an ordinary answer for that.
func withoutData(meta map[string]any) error {
	e := &provider.Error{Kind: provider.ErrMissing, Op: opRead, Text: "the version has no content"}
	var m versionMetadata
	m.Version, _ = meta["version"].(json.Number)
	m.DeletionTime, _ = meta["deletion_time"].(string)
	m.Destroyed, _ = meta["destroyed"].(bool)
	m.judge(e)
	return e
}

// valueOf returns a string as it is and everything else as JSON in one line.
func valueOf(v any) ([]byte, error) {
	if s, ok := v.(string); ok {
		return []byte(s), nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
