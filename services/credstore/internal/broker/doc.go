// Package broker owns the fetching of secrets from external stores for the whole
// fleet: which one is read when, with which login, and what is made of the
// answer. It stores nothing itself (the domain commits what it brings, and sends
// it to workloads), and knows no vendor: the wiring hands it an Opener for each.
//
// Each secret that an injection needs is read once per interval, however many
// injections and workloads need it. All of a store's secrets share one session,
// which is replaced when the store or its credential changes. One goroutine owns
// the whole schedule; each call to a store has a short-lived one of its own.
package broker
