// Package oncekey is an embedded idempotency engine: an operation that is sent twice with the same
// idempotency key runs once, and the second caller gets the first answer, across retries, concurrent
// duplicates, crashes and power loss. Every answered change is on disk, in a directory that one process holds
// at a time.
//
// [Engine.Do] runs an operation in one call. [Engine.Begin] requests the right to execute the operation that
// a [Key] names, and returns one of five results: a [Claim] to execute under, the [Recorded] response of an
// earlier execution, or the reason why the operation cannot execute now ([InFlight], [Mismatch], [Orphan]).
//
// Contexts limit how long a call waits, but not the fate of the operation: a completion whose context ends is
// made durable all the same. The one exception is Begin: if the context ends first, a claim that was won but
// not received is aborted.
//
// Waiting goroutines hold no threads: one goroutine sends calls to the engine in batches, and another
// receives the results. Open, Get, Orphans, Fold, Sweep, Backup, Verify, Reopen and Close call the engine
// directly and hold a thread until they return.
//
// The package needs cgo and a C compiler. The modules of a release contain the C library. In a clone, and
// with the build tag oncekey_shared, pkg-config finds the library. With oncekey_static it is found the same
// way and linked statically.
package oncekey
