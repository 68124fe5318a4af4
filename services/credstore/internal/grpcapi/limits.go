package grpcapi

import "time"

const (
	// maxReceive is the greatest message that is accepted, in bytes. gRPC's own
	// bound is twice that: it answers without details, so it comes second.
	maxReceive = 2 << 20
	// maxSend fits the largest set (8 MiB of contents) with its manifest.
	maxSend = 16 << 20
	// window is the flow-control window of streams and connections. Fixed ones
	// above 64 KiB switch off gRPC's estimator, which costs half the CPU of a
	// fan-out.
	window = 1 << 20

	// defaultDeadline and maxDeadline bound calls; streams have none.
	defaultDeadline = 30 * time.Second
	maxDeadline     = 60 * time.Second

	// reportsPerSecond and reportBurst bound what one WatchSet stream is read;
	// beyond them flow control slows the injector down.
	reportsPerSecond = 10
	reportBurst      = 100
)

// Limits bound what callers can make a server do. A field that is 0 means its
// default.
type Limits struct {
	// Calls is how many calls run at once, 1,000, and half of them of one project;
	// more are answered UNAVAILABLE with a time to retry.
	Calls int
	// Streams is how many streams are open at once, 20,000; more are answered
	// likewise.
	Streams int
	// ConnectionStreams is how many calls and streams one connection carries at
	// once, 1,000; a client waits with more.
	ConnectionStreams int
	// PrincipalRate is how many calls and streams per second one principal may
	// begin, 5,000, with bursts of twice that; more are answered
	// RESOURCE_EXHAUSTED with a time to retry. Below 0 means any number.
	PrincipalRate float64
	// OpenTimeout is how long a stream may take to send its first message, 10 s.
	OpenTimeout time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Calls == 0 {
		l.Calls = 1000
	}
	if l.Streams == 0 {
		l.Streams = 20_000
	}
	if l.ConnectionStreams == 0 {
		l.ConnectionStreams = 1000
	}
	if l.PrincipalRate == 0 {
		l.PrincipalRate = 5000
	}
	if l.OpenTimeout == 0 {
		l.OpenTimeout = 10 * time.Second
	}
	return l
}
