//go:build cgo

package oncekey

import (
	"context"
	"errors"
)

// Outcome is what [Engine.Do] came to: [*Executed], [*Recorded], [*InFlight], [*Mismatch] or [*Orphan].
type Outcome interface {
	isOutcome()
}

func (*Executed) isOutcome() {}
func (*Recorded) isOutcome() {}
func (*InFlight) isOutcome() {}
func (*Mismatch) isOutcome() {}
func (*Orphan) isOutcome()   {}

// Executed is an operation that this call executed.
type Executed struct {
	// Response that the function returned.
	Response []byte
	// Kept is false when the response was longer than MaxResponse, or when it could not be recorded.
	Kept bool
	// Token of the claim that it was executed under.
	Token Token
}

// Do runs an operation under a key: once, however often it is called with the same key and fingerprint. Of
// the five outcomes [*Executed] is the first call's, and [*Recorded] that of each later one, with the same
// response; [*InFlight], [*Mismatch] and [*Orphan] say why the operation is not run. An orphan is never run
// again by itself; the caller resolves it or closes it.
//
//	outcome, err := engine.Do(ctx, key, fingerprint, func(ctx context.Context) ([]byte, error) {
//		return charge(ctx, card)
//	})
//
// When run returns an error, that error is returned, and nobody knows how far the operation got: its key is an
// orphan from then on. The same holds when run panics; the panic goes on. An error of run that
// [NotExecuted] made says that nothing happened: the key is free again.
//
// ctx ends the wait for the claim, and is passed to run. A claim that comes too late is aborted, and run is not
// called. Once run has returned, its response is recorded whether ctx has ended or not. Where it cannot be
// recorded, the outcome is Executed beside an error: the operation was run, and its key is an orphan, or
// completed, once the engine is reopened.
func (e *Engine) Do(ctx context.Context, key Key, fingerprint Fingerprint, run func(context.Context) ([]byte, error)) (Outcome, error) {
	found, err := e.Begin(ctx, key, fingerprint)
	if err != nil {
		return nil, err
	}
	claim, claimed := found.(*Claim)
	if !claimed {
		// Everything else that a begin finds is an outcome.
		return found.(Outcome), nil
	}
	// Of a claim that was ended closing changes nothing; left by an error or a panic, it is an orphan.
	defer claim.Close()
	response, err := run(ctx)
	ending := context.WithoutCancel(ctx)
	var nothing *notExecuted
	if errors.As(err, &nothing) {
		return nil, errors.Join(err, claim.Abort(ending))
	}
	if err != nil {
		return nil, err
	}
	kept, err := claim.Complete(ending, response)
	return &Executed{Response: response, Kept: kept, Token: claim.Token}, err
}

type notExecuted struct {
	cause error
}

func (n *notExecuted) Error() string { return n.cause.Error() }
func (n *notExecuted) Unwrap() error { return n.cause }

// NotExecuted marks an error that the function of [Engine.Do] returns: the operation had no effect, and its key
// is free for the next call. [errors.Is] and [errors.As] see cause.
func NotExecuted(cause error) error {
	return &notExecuted{cause}
}
