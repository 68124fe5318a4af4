package grpcapi

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// metrics are the server's. No label holds a name of a tenant's.
type metrics struct {
	handled  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	panics   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credstore_grpc_handled_total", Help: "Calls and streams that ended, by method and status code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "credstore_grpc_call_duration_seconds", Help: "How long calls took, by method; not streams.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "credstore_grpc_streams", Help: "Streams that are open, by method.",
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "credstore_grpc_panics_total", Help: "Panics that were contained; each is a defect.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.handled, m.duration, m.streams, m.panics} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// methodMetrics are one method's, looked up once.
type methodMetrics struct {
	handled  [codes.Unauthenticated + 1]prometheus.Counter
	duration prometheus.Observer
	streams  prometheus.Gauge
}

// of prepares the metrics of a method; a call has a duration, a stream a gauge.
func (m *metrics) of(method string, stream bool) *methodMetrics {
	mm := &methodMetrics{}
	for c := range mm.handled {
		mm.handled[c] = m.handled.WithLabelValues(method, codes.Code(c).String())
	}
	if stream {
		mm.streams = m.streams.WithLabelValues(method)
	} else {
		mm.duration = m.duration.WithLabelValues(method)
	}
	return mm
}

func (m *methodMetrics) begin() {
	if m.streams != nil {
		m.streams.Inc()
	}
}

func (m *methodMetrics) end(code codes.Code, took time.Duration) {
	if int(code) < len(m.handled) {
		m.handled[code].Inc()
	}
	if m.streams != nil {
		m.streams.Dec()
	} else {
		m.duration.Observe(took.Seconds())
	}
}
