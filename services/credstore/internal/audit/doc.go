// Package audit owns the audit log: one JSON object per line and entry, appended
// before the call goes on. It decides nothing, and knows neither payloads nor
// requests: an entry has no field for a secret.
package audit
