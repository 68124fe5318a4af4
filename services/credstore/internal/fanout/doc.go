// Package fanout owns the way from one publisher to many readers: events in
// revision order, each reader at its own pace, in bounded memory. It does not
// own the state that the events describe: a reader that was overtaken is told
// so with [ErrLagged], and its caller reads the state elsewhere and goes on
// with [Subscription.Resume].
//
// A [Hub] keeps the newest events in one ring that all subscriptions share,
// bounded in events and in bytes. An index from topic to subscriptions makes a
// publish cost only those that want the event. A [Subscription] holds the
// sequence numbers of the events that wait for it and never the events, so one
// that nobody reads pins nothing. There are no goroutines in this package.
//
// What a subscription promises, for the events on its topics:
//
//   - ordered: revisions strictly increase;
//   - unique: no event comes twice, however many of its topics are subscribed;
//   - atomic: an event comes whole, in one answer;
//   - reliable: every event comes, or ErrLagged does, and never a silent hole.
//
// And to the publisher: no reader, however slow, makes Publish wait.
package fanout
