package provider

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// VendorMetrics counts and times the calls to the vendors of credentials. Nil
// counts nothing.
type VendorMetrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewVendorMetrics makes the metrics known to r, which may be nil. Their labels
// are the credential's kind, the operation and the outcome: few, however many
// credentials there are.
func NewVendorMetrics(r prometheus.Registerer) (*VendorMetrics, error) {
	m := &VendorMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credstore_vendor_calls_total",
			Help: "Calls to the vendors of credentials, each with its retries, by what came of them.",
		}, []string{"kind", "operation", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "credstore_vendor_call_duration_seconds",
			Help:    "Time that calls to the vendors of credentials took, with their retries.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"kind", "operation"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.calls), r.Register(m.duration))
}

func (m *VendorMetrics) count(kind, op string, took time.Duration, err error) {
	if m == nil {
		return
	}
	m.calls.WithLabelValues(kind, op, vendorOutcome(err)).Inc()
	m.duration.WithLabelValues(kind, op).Observe(took.Seconds())
}

func vendorOutcome(err error) string {
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
	case errors.Is(e, ErrUnsupported):
		return "unsupported"
	}
	return "refused"
}
