package issuer

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the issuer's own; those of the calls to vendors are the provider
// package's.
type metrics struct {
	// kept, waited and failed count the answers of Mint.
	kept, waited, failed prometheus.Counter
	tokens               prometheus.Gauge
	items                *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "credstore_issuer_tokens_total",
		Help: "Tokens that calls asked for, by where they came from: kept, minted, failed.",
	}, []string{"result"})
	m := &metrics{
		kept: answers.WithLabelValues("kept"), waited: answers.WithLabelValues("minted"), failed: answers.WithLabelValues("failed"),
		tokens: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "credstore_issuer_cache_entries", Help: "Tokens, and refusals, that are kept in memory for calls.",
		}),
		items: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "credstore_issuer_wanted_tokens", Help: "Tokens that injections need, by state: ok, failing.",
		}, []string{"state"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(answers), r.Register(m.tokens), r.Register(m.items))
}
