package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime/debug"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
)

// streamWriter gives an error that comes before the first message of a stream
// the form of any other error: the runtime wraps it as one that ends a stream.
type streamWriter struct {
	http.ResponseWriter

	failed bool
}

// Unwrap lets http.ResponseController find the flusher.
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader is called by the runtime for an error before the first message.
func (w *streamWriter) WriteHeader(code int) {
	w.failed = w.failed || code >= http.StatusBadRequest
	w.ResponseWriter.WriteHeader(code)
}

// Write passes messages on as they are.
func (w *streamWriter) Write(b []byte) (int, error) {
	if !w.failed {
		return w.ResponseWriter.Write(b)
	}
	var wrapped struct {
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(b, &wrapped); err != nil || wrapped.Error == nil {
		return w.ResponseWriter.Write(b)
	}
	if _, err := w.ResponseWriter.Write(wrapped.Error); err != nil {
		return 0, err
	}
	return len(b), nil
}

// plainErrors is the JSON of the contract with errors that do not repeat input.
// The checks before it leave it nothing to refuse.
type plainErrors struct{ *runtime.JSONPb }

var errBody = errors.New("the body does not fit the request")

// NewDecoder returns a decoder whose errors are io.EOF or errBody.
func (p plainErrors) NewDecoder(r io.Reader) runtime.Decoder {
	d := p.JSONPb.NewDecoder(r)
	return runtime.DecoderFunc(func(v any) error {
		switch err := d.Decode(v); {
		case err == nil, errors.Is(err, io.EOF):
			return err
		default:
			return errBody
		}
	})
}

func stack() string { return string(debug.Stack()) }
