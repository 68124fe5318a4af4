package broker

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the broker's own; those of the calls to stores are the provider
// package's.
type metrics struct {
	secrets, logins prometheus.Gauge
	polls           *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		secrets: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "credstore_broker_secrets", Help: "Secrets of external stores that injections need.",
		}),
		logins: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "credstore_broker_logins", Help: "Secret stores that are polled, each with one login.",
		}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credstore_broker_polls_total", Help: "Polls of secrets by what came of them: changed, same, failed.",
		}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.secrets), r.Register(m.logins), r.Register(m.polls))
}
