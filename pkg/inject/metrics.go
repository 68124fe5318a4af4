package inject

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is a metric that exists only if somebody wants it.
type metric struct {
	counter   prometheus.Counter
	histogram prometheus.Histogram
}

func (m metric) add(v float64) {
	if m.counter != nil {
		m.counter.Add(v)
	}
}

func (m metric) observe(v float64) {
	if m.histogram != nil {
		m.histogram.Observe(v)
	}
}

// collector reads the status at each scrape. Its series are bounded by the
// number of injections.
type collector struct {
	e *Engine
	ready, connected, connections, disconnections, revision, lastApply, age,
	items, failed *prometheus.Desc
}

// register makes the engine's metrics known.
func (e *Engine) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("injector_"+name, help, labels, nil)
	}
	e.latency.histogram = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "injector_apply_duration_seconds",
		Help:    "Time from the receipt of a set to the moment its files are published, for sets that changed files.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	})
	e.publishFailures.counter = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "injector_publish_failures_total",
		Help: "Attempts to publish a set that left everything as it was.",
	})
	for _, c := range []prometheus.Collector{e.latency.histogram, e.publishFailures.counter, &collector{
		e:              e,
		ready:          desc("ready", "Whether a complete set was applied."),
		connected:      desc("connected", "Whether the stream of sets is open."),
		connections:    desc("connections_total", "Streams of sets that were opened."),
		disconnections: desc("disconnections_total", "Streams of sets that ended or could not be opened."),
		revision:       desc("set_revision", "Revision of the set that was processed last."),
		lastApply:      desc("last_apply_timestamp_seconds", "When the files were last found or made equal to the set."),
		age:            desc("set_age_seconds", "Time since the set that is applied arrived."),
		items:          desc("items", "Items of the set.", "injection"),
		failed:         desc("failed_items", "Items whose file is not what the set says.", "injection"),
	}} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.ready, c.connected, c.connections, c.disconnections, c.revision, c.lastApply, c.age, c.items, c.failed} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.e.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(c.ready, truth(s.Ready))
	gauge(c.connected, truth(s.Connected))
	count(c.connections, s.Connections)
	count(c.disconnections, s.Disconnections)
	gauge(c.revision, float64(s.Revision))
	if !s.Applied.IsZero() {
		gauge(c.lastApply, float64(s.Applied.UnixNano())/1e9)
		gauge(c.age, time.Since(s.Received).Seconds())
	}
	for name, n := range s.Injections {
		name = strings.ToValidUTF8(name, "?") // another label would be a panic
		gauge(c.items, float64(n.Items), name)
		gauge(c.failed, float64(n.Failed), name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
