package provider

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts and times the calls to external stores. Nil counts nothing.
type Metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics makes the metrics known to r, which may be nil. Their labels are
// the provider, the operation and the outcome: few, whatever the stores hold.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credstore_provider_calls_total",
			Help: "Calls to external stores, each with its retries, by what came of them.",
		}, []string{"provider", "operation", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "credstore_provider_call_duration_seconds",
			Help:    "Time that calls to external stores took, with their retries.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"provider", "operation"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.calls), r.Register(m.duration))
}

func (m *Metrics) count(provider, op string, took time.Duration, err error) {
	if m == nil {
		return
	}
	out := outcome(err)
	m.calls.WithLabelValues(provider, op, out).Inc()
	if out != "not_asked" {
		m.duration.WithLabelValues(provider, op).Observe(took.Seconds())
	}
}

func outcome(err error) string {
	e, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return "ok"
	case !ok:
		return "cancelled"
	case e.NotAsked:
		return "not_asked"
	case errors.Is(e, ErrUnavailable):
		return "unavailable"
	case errors.Is(e, ErrRefused):
		return "refused"
	case errors.Is(e, ErrMissing):
		return "missing"
	case errors.Is(e, ErrDeleted):
		return "deleted"
	}
	return "destroyed"
}
