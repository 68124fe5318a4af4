package app

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

var (
	agesDescription = prometheus.NewDesc("credstore_credentials",
		"Credentials by how it stands with their age.", []string{"kind", "age_state"}, nil)
	verificationsDescription = prometheus.NewDesc("credstore_credential_verifications",
		"Credentials by what came of their last verification.", []string{"kind", "verification"}, nil)
)

// ages tells how many credentials are due, when it is asked. Projects are added
// up: metrics hold no names of resources.
type ages func() []core.Ages

// Describe implements prometheus.Collector.
func (a ages) Describe(out chan<- *prometheus.Desc) {
	out <- agesDescription
	out <- verificationsDescription
}

// Collect implements prometheus.Collector.
func (a ages) Collect(out chan<- prometheus.Metric) {
	type series struct {
		of          *prometheus.Desc
		kind, state string
	}
	counts := make(map[series]int)
	for _, n := range a() {
		for state, count := range n.States {
			counts[series{agesDescription, string(n.Kind), core.AgeState(state).String()}] += count
		}
		for state, count := range n.Verifications {
			counts[series{verificationsDescription, string(n.Kind), core.VerificationState(state).String()}] += count
		}
	}
	for s, count := range counts {
		if count > 0 {
			out <- prometheus.MustNewConstMetric(s.of, prometheus.GaugeValue, float64(count), s.kind, s.state)
		}
	}
}

// newObserver serves the metrics, which hold no names of resources.
func newObserver(r *prometheus.Registry) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
}
