// Package oncekey is an embedded idempotency engine: an operation that is sent twice with the same
// idempotency key runs once, and the second caller gets the first answer, across retries, concurrent
// duplicates, crashes and power loss. Everything that was answered is on disk, in a directory that
// one process holds at a time.
//
// [Engine.Do] runs an operation in one call. [Engine.Begin] asks for the right to execute the
// operation that a [Key] names, and gives one of five answers: a [Claim] to execute under, the
// [Recorded] response of an earlier execution, or why it cannot execute now ([InFlight], [Mismatch],
// [Orphan]).
//
// Contexts bound how long a call waits, never what happens to the operation: a completion whose
// context ends is made durable all the same. The one exception is Begin: a claim that was won but
// not received, because the context ended first, is aborted.
//
// Goroutines that wait hold no threads: calls go to the engine in batches, by one goroutine, and
// come back by another. Open, Get, Orphans, Fold, Sweep, Backup, Verify, Reopen and Close call the
// engine directly and hold a thread until they return.
//
// The package needs cgo and a C compiler. The modules of a release bring the C library along. In a clone, and with
// the build tag oncekey_shared, it is found with pkg-config; with oncekey_static it is found so and linked statically.
package oncekey
