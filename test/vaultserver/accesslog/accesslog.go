// Package accesslog owns the record of the requests that an HTTP server has
// answered: a count for each method and path, and a line for each request. It
// keeps no headers and no bodies, so that no token and no secret is in it.
package accesslog

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// path is where the counts are served, beside what the wrapped handler serves.
const path = "/test/requests"

// entry is one line of the log.
type entry struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Query  string    `json:"query,omitempty"`
	Status int       `json:"status"`
}

type handler struct {
	next http.Handler
	now  func() time.Time

	mu     sync.Mutex
	lines  *json.Encoder
	counts map[string]int
}

// New wraps next. Each request is counted before next sees it, so that whoever
// holds an answer finds it counted, and gets a line in log, in one Write, after
// next has answered it. GET /test/requests answers with the counts as JSON;
// DELETE answers the same and resets the counts, in one step. Requests to that
// path are not recorded.
func New(next http.Handler, log io.Writer, now func() time.Time) http.Handler {
	return &handler{next: next, now: now, lines: json.NewEncoder(log), counts: map[string]int{}}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == path {
		h.serveCounts(w, r)
		return
	}
	// The wrapped handler may change the request.
	done := entry{Time: h.now().UTC(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Status: http.StatusOK}
	h.mu.Lock()
	h.counts[done.Method+" "+done.Path]++
	h.mu.Unlock()

	seen := &recorder{ResponseWriter: w}
	h.next.ServeHTTP(seen, r)
	if seen.status != 0 {
		done.Status = seen.status
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.lines.Encode(done) // the counts still tell when the file cannot
}

func (h *handler) serveCounts(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	counts := maps.Clone(h.counts)
	switch r.Method {
	case http.MethodGet:
	case http.MethodDelete:
		clear(h.counts)
	default:
		h.mu.Unlock()
		w.Header().Set("Allow", "GET, DELETE")
		http.Error(w, "use GET or DELETE", http.StatusMethodNotAllowed)
		return
	}
	h.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(counts) // the client is gone
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach what the wrapped writer can do.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Flush sends what was written so far.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }
